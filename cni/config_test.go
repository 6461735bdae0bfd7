package main

import (
	"strings"
	"testing"
	"time"
)

func TestConfigurationIsStrict(t *testing.T) {
	for _, one := range []struct {
		name, extra string
		code        int
		message     string
	}{
		{"unknown field", `"runDirectory":"/x"`, 2, `unknown field "runDirectory"`},
		{"unknown fields", `"b":1,"a":2`, 2, `unknown field "a", "b"`},
		{"well-known field without effect here", `"ipam":{}`, 2, `unknown field "ipam"`},
		{"field of the wrong type", `"logLevel":3`, 7, `field "logLevel"`},
		{"unknown level", `"logLevel":"verbose"`, 7, `value "verbose": expected error, warn, info or debug`},
		{"no namespace", `"controlPlaneNamespace":"Heddle_1"`, 7, `value "Heddle_1": expected a namespace`},
		{"unknown gate", `"statusGate":"always"`, 7, `value "always": expected none or firstBoot`},
		{"unknown timeout", `"timeouts":{"addSeconds":1}`, 7, `unknown field "addSeconds"`},
		{"timeout too long", `"timeouts":{"delMs":1000}`, 7, `delMs is 1000: expected 10 to 900`},
		{"timeout too short", `"timeouts":{"connectMs":0}`, 7, `connectMs is 0: expected 10 to 5000`},
		{"annotations of the wrong type", `"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"a":1}}`, 7, `field "runtimeConfig"`},
	} {
		t.Run(one.name, func(t *testing.T) {
			stdin := stdinOptions{previous: plainResult, runDir: "/run/x", extra: one.extra}.String()
			got := call{command: "ADD", containerID: "c1", netns: "/none", args: podArgs, stdin: stdin}.run(t).failure(t)
			if got.Code != one.code || !strings.Contains(got.Msg, one.message) {
				t.Fatalf("got %+v", got)
			}
		})
	}
	t.Run("relative run directory", func(t *testing.T) {
		stdin := stdinOptions{previous: plainResult, runDir: "run"}.String()
		got := call{command: "ADD", containerID: "c1", netns: "/none", args: podArgs, stdin: stdin}.run(t).failure(t)
		if got.Code != 7 || !strings.Contains(got.Msg, "expected an absolute path") {
			t.Fatalf("got %+v", got)
		}
	})
}

func TestRequestsThatAreRefused(t *testing.T) {
	stdin := stdinOptions{previous: plainResult, runDir: "/run/x"}.String()
	for _, one := range []struct {
		name string
		call call
		code int
	}{
		{"no container ID", call{command: "ADD", unset: "CNI_CONTAINERID", netns: "/n", stdin: stdin}, 4},
		{"container ID with a path", call{command: "ADD", containerID: "../x", netns: "/n", stdin: stdin}, 4},
		{"no namespace", call{command: "ADD", containerID: "c1", unset: "CNI_NETNS", stdin: stdin}, 4},
		{"bad CNI_ARGS", call{command: "ADD", containerID: "c1", netns: "/n", args: "K8S_POD_NAME", stdin: stdin}, 4},
		{"unknown verb", call{command: "MOVE", stdin: stdin}, 4},
		{"no JSON", call{command: "ADD", containerID: "c1", netns: "/n", stdin: "{"}, 6},
		{"no network name", call{command: "ADD", containerID: "c1", netns: "/n", stdin: `{"cniVersion":"1.0.0"}`}, 7},
		{"not chained", call{command: "ADD", containerID: "c1", netns: "/n", stdin: stdinOptions{runDir: "/run/x"}.String()}, 7},
		{"version too old", call{command: "ADD", containerID: "c1", netns: "/n", stdin: `{"cniVersion":"0.2.0","name":"k8s"}`}, 1},
		{"version too new", call{command: "ADD", containerID: "c1", netns: "/n", stdin: `{"cniVersion":"2.0.0","name":"k8s"}`}, 1},
		{"CHECK before 0.4.0", call{command: "CHECK", containerID: "c1", netns: "/n", stdin: `{"cniVersion":"0.3.1","name":"k8s"}`}, 1},
		{"GC before 1.1.0", call{command: "GC", stdin: stdin}, 1},
		{"STATUS before 1.1.0", call{command: "STATUS", stdin: stdin}, 1},
	} {
		t.Run(one.name, func(t *testing.T) {
			if got := one.call.run(t).failure(t); got.Code != one.code {
				t.Fatalf("got %+v, want code %d", got, one.code)
			}
		})
	}
}

func TestConfigurationIsRead(t *testing.T) {
	c, failure := parseConfig([]byte(`{"cniVersion":"1.1.0","name":"net","type":"heddle-cni","capabilities":{"x":true},
		"args":{"cni":{}},"cni.dev/attachments":[],"runDir":"/a","controlPlaneNamespace":"mesh","logLevel":"debug",
		"statusGate":"firstBoot","timeouts":{"connectMs":11,"acceptMs":12,"addMs":113,"delMs":14},
		"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"a":"b"},"portMappings":[]}}`))
	if failure != nil {
		t.Fatal(failure)
	}
	want := limits{11 * time.Millisecond, 12 * time.Millisecond, 113 * time.Millisecond, 14 * time.Millisecond}
	if c.limits != want || c.network != "net" || c.runDir != "/a" || c.controlPlaneNamespace != "mesh" ||
		c.logLevel != "debug" || c.statusGate != "firstBoot" || c.annotations["a"] != "b" {
		t.Fatalf("got %+v", c)
	}
	for _, empty := range []string{`{}`, `{"runtimeConfig":null}`, `{"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{}}}`} {
		if c, failure := parseConfig([]byte(empty)); failure != nil || c.annotations != nil {
			t.Fatalf("%s: got %v, %v: expected unknown annotations", empty, c.annotations, failure)
		}
	}
}

// Whatever a runtime sends, the parser answers with a configuration that can be used, and never crashes.
func FuzzParseConfig(f *testing.F) {
	f.Add(`{"cniVersion":"1.0.0","name":"k8s","prevResult":{"ips":[{"address":"10.0.0.1/8"}]}}`)
	f.Add(`{"runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"a":"b"}},"timeouts":{"addMs":1e9}}`)
	f.Add(`{"prevResult":{ },"cniVersion":3,"name":null}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, _ := parseConfig([]byte(text))
		if c == nil || c.limits.del <= 0 || c.runDir == "" {
			t.Fatalf("%q: got %+v", text, c)
		}
		if output, failure := passResult(c.prevResult, "1.0.0"); failure == nil && len(output) == 0 {
			t.Fatalf("%q: empty result", text)
		}
		_, _ = addresses(c.prevResult)
		_, _ = parseArgs(text)
	})
}
