package main

import (
	"os"
	"path/filepath"
	"testing"
)

const namespacesText = `{"v":1,"writtenMs":1,"meshed":{"shop":{},"lax":{"onAgentDown":"open"},"strict":{"onAgentDown":"closed"}},` +
	`"unmeshed":["batch"]}`

func readSet(t *testing.T, text string) *namespaceSet {
	t.Helper()
	runDir := t.TempDir()
	if text != "" {
		writeNamespaces(t, runDir, text)
	}
	set, err := readNamespaces(runDir)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestClassify(t *testing.T) {
	kubelet := map[string]string{"kubernetes.io/config.source": "api"}
	with := func(key, value string) map[string]string {
		return map[string]string{"kubernetes.io/config.source": "api", key: value}
	}
	for _, one := range []struct {
		name         string
		namespace    string
		annotations  map[string]string
		controlPlane string
		noFile       bool
		want         verdict
	}{
		{"no pod", "", kubelet, "", false, pass},
		{"stamped", "other", with(annotationMeshed, "heddle"), "heddle", false, askMeshed},
		{"stamped, no control plane configured", "other", with(annotationMeshed, "heddle"), "", false, askMeshed},
		{"stamped, without the file", "other", with(annotationMeshed, "heddle"), "heddle", true, askMeshed},
		{"stamped by another control plane", "shop", with(annotationMeshed, "blue"), "heddle", false, pass},
		{"control plane's own pod", "heddle", kubelet, "heddle", false, pass},
		{"disabled in a meshed namespace", "shop", with(annotationInject, "disabled"), "", false, pass},
		{"meshed namespace", "shop", kubelet, "", false, askMeshed},
		{"meshed namespace, annotations unknown", "shop", nil, "", false, askMeshed},
		{"meshed namespace, without the file", "shop", kubelet, "", true, askUnmeshed},
		{"unmeshed namespace", "batch", kubelet, "", false, pass},
		{"unmeshed namespace, pod asks to be meshed", "batch", with(annotationInject, "enabled"), "", false, askUnmeshed},
		{"unmeshed namespace, annotations unknown", "batch", nil, "", false, askUnmeshed},
		{"unknown namespace", "new", kubelet, "", false, askUnmeshed},
		{"empty stamp is none", "batch", with(annotationMeshed, ""), "", false, pass},
	} {
		t.Run(one.name, func(t *testing.T) {
			text := namespacesText
			if one.noFile {
				text = ""
			}
			c := defaultConfig()
			c.annotations, c.controlPlaneNamespace = one.annotations, one.controlPlane
			p := pod{Namespace: one.namespace, Name: "web-1"}
			if one.namespace == "" {
				p.Name = ""
			}
			if got, reason := classify(c, p, readSet(t, text)); got != one.want || reason == "" {
				t.Fatalf("got %d (%s), want %d", got, reason, one.want)
			}
		})
	}
}

func TestIsOpen(t *testing.T) {
	for _, one := range []struct {
		namespace, annotation string
		want                  bool
	}{
		{"shop", "", false}, {"shop", "open", true}, {"shop", "Open", false}, {"lax", "", true}, {"lax", "closed", true},
		{"strict", "open", false}, {"unknown", "open", true}, {"unknown", "closed", false},
	} {
		c := defaultConfig()
		if one.annotation != "" {
			c.annotations = map[string]string{annotationOnAgentDown: one.annotation}
		}
		if got := isOpen(c, pod{Namespace: one.namespace}, readSet(t, namespacesText)); got != one.want {
			t.Errorf("namespace %q, annotation %q: got %t", one.namespace, one.annotation, got)
		}
	}
}

func TestNamespacesFileThatCannotBeUsed(t *testing.T) {
	for name, text := range map[string]string{
		"half written": `{"v":1,"meshed":{"sh`, "another version": `{"v":2,"meshed":{}}`, "empty": ``, "no object": `[]`,
	} {
		t.Run(name, func(t *testing.T) {
			runDir := t.TempDir()
			writeNamespaces(t, runDir, text)
			if set, err := readNamespaces(runDir); err == nil || set != nil {
				t.Fatalf("got %+v, %v: expected an error", set, err)
			}
		})
	}
	t.Run("too long", func(t *testing.T) {
		runDir := t.TempDir()
		if err := os.Truncate(touch(t, filepath.Join(runDir, "meshed-namespaces.json")), namespacesBytesMax+1); err != nil {
			t.Fatal(err)
		}
		if _, err := readNamespaces(runDir); err == nil {
			t.Fatal("expected an error")
		}
	})
}

func touch(t *testing.T, path string) string {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
