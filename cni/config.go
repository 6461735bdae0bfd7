// The plugin's section of the network configuration (standard input) and CNI_ARGS. Strict: an unknown key is an error,
// because a misspelt one would silently mean its default.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

const (
	defaultRunDir  = "/run/heddle"
	annotationsKey = "io.kubernetes.cri.pod-annotations"
)

// limits are the plugin's waiting times. The runtime must never hang on an agent that does.
type limits struct {
	connect time.Duration
	// accept: how long an agent may take to say that it is alive and at work.
	accept time.Duration
	add    time.Duration
	del    time.Duration
}

type config struct {
	cniVersion            string
	network               string
	prevResult            json.RawMessage
	annotations           map[string]string // nil when the runtime does not hand them over
	runDir                string
	controlPlaneNamespace string
	logLevel              string
	statusGate            string
	limits                limits
	validAttachments      []attachment
	hasValidAttachments   bool
}

func defaultConfig() *config {
	return &config{
		runDir: defaultRunDir, logLevel: "info", statusGate: "none",
		limits: limits{
			connect: 500 * time.Millisecond, accept: time.Second, add: 10 * time.Second, del: 800 * time.Millisecond,
		},
	}
}

// keysOfCNI are what the specification and libcni put beside a plugin's own keys (CNI 1.1.0 section 1). The well-known
// ipam, dns and ipMasq are not among them: here they would do nothing, which the user should hear of.
var keysOfCNI = map[string]bool{"cniVersion": true, "name": true, "type": true, "capabilities": true, "args": true}

// parseConfig reads the configuration; it returns what was understood even beside an error, so that DEL can go on.
func parseConfig(stdin []byte) (*config, *types.Error) {
	c := defaultConfig()
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(stdin, &keys); err != nil {
		return c, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("heddle: decode the network configuration: %v", err), "")
	}
	var unknown []string
	var first *types.Error
	for key, raw := range keys {
		if keysOfCNI[key] {
			continue
		}
		known, err := c.read(key, raw)
		if !known && !strings.HasPrefix(key, "cni.dev/") {
			unknown = append(unknown, key)
		}
		if err != nil && first == nil {
			first = types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("heddle: field %q: %v", key, err), "")
		}
	}
	for _, key := range []struct {
		name string
		to   *string
	}{{"cniVersion", &c.cniVersion}, {"name", &c.network}} {
		if raw, ok := keys[key.name]; ok {
			if err := json.Unmarshal(raw, key.to); err != nil && first == nil {
				first = types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("heddle: field %q: %v", key.name, err), "")
			}
		}
	}
	if len(unknown) > 0 {
		sort.Strings(unknown)
		return c, types.NewError(types.ErrUnsupportedField, fmt.Sprintf(
			"heddle: unknown field \"%s\" in the plugin's section of network %q: expected type, runDir, controlPlaneNamespace, "+
				"logLevel, statusGate or timeouts", strings.Join(unknown, `", "`), c.network), "")
	}
	return c, first
}

// read takes one key of our own section; known is false for a key that is not ours.
func (c *config) read(key string, raw json.RawMessage) (known bool, err error) {
	switch key {
	case "runDir":
		return true, decodeChecked(raw, &c.runDir, filepath.IsAbs, "an absolute path")
	case "controlPlaneNamespace":
		return true, decodeChecked(raw, &c.controlPlaneNamespace, isLabel, "a namespace")
	case "logLevel":
		return true, decodeChecked(raw, &c.logLevel, func(level string) bool {
			_, ok := logLevels[level]
			return ok
		}, "error, warn, info or debug")
	case "statusGate":
		return true, decodeChecked(raw, &c.statusGate, func(gate string) bool {
			return gate == "none" || gate == "firstBoot"
		}, "none or firstBoot")
	case "timeouts":
		return true, c.readTimeouts(raw)
	case "runtimeConfig":
		return true, c.readRuntimeConfig(raw)
	case "prevResult":
		c.prevResult = raw
		return true, nil
	case "cni.dev/valid-attachments":
		c.hasValidAttachments = true
		return true, json.Unmarshal(raw, &c.validAttachments)
	}
	return false, nil
}

func (c *config) readTimeouts(raw json.RawMessage) error {
	var section struct {
		ConnectMs *int `json:"connectMs"`
		AcceptMs  *int `json:"acceptMs"`
		AddMs     *int `json:"addMs"`
		DelMs     *int `json:"delMs"`
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&section); err != nil {
		return err
	}
	for _, one := range []struct {
		name     string
		given    *int
		min, max int
		to       *time.Duration
	}{
		{"connectMs", section.ConnectMs, 10, 5_000, &c.limits.connect},
		{"acceptMs", section.AcceptMs, 10, 10_000, &c.limits.accept},
		{"addMs", section.AddMs, 100, 60_000, &c.limits.add},
		{"delMs", section.DelMs, 10, 900, &c.limits.del},
	} {
		if one.given == nil {
			continue
		}
		if *one.given < one.min || *one.given > one.max {
			return fmt.Errorf("%s is %d: expected %d to %d", one.name, *one.given, one.min, one.max)
		}
		*one.to = time.Duration(*one.given) * time.Millisecond
	}
	return nil
}

// readRuntimeConfig takes the pod's annotations. An empty map means the runtime lacks the capability: the kubelet puts
// annotations of its own on every pod. Other entries are the runtime's business.
func (c *config) readRuntimeConfig(raw json.RawMessage) error {
	var section map[string]json.RawMessage
	if err := json.Unmarshal(raw, &section); err != nil {
		return err
	}
	given, ok := section[annotationsKey]
	if !ok {
		return nil
	}
	var annotations map[string]string
	if err := json.Unmarshal(given, &annotations); err != nil {
		return fmt.Errorf("%q: %v", annotationsKey, err)
	}
	if len(annotations) > 0 {
		c.annotations = annotations
	}
	return nil
}

func decodeChecked(raw json.RawMessage, to *string, valid func(string) bool, expected string) error {
	var value string
	if err := json.Unmarshal(raw, &value); err != nil {
		return err
	}
	if !valid(value) {
		return fmt.Errorf("value %q: expected %s", value, expected)
	}
	*to = value
	return nil
}

// isLabel tells a DNS label (RFC 1123), which is what names of namespaces are.
func isLabel(name string) bool {
	if len(name) == 0 || len(name) > 63 || name[0] == '-' || name[len(name)-1] == '-' {
		return false
	}
	for _, r := range name {
		if r != '-' && (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return false
		}
	}
	return true
}

// pod names the pod as the runtime's CNI_ARGS do; empty outside Kubernetes.
type pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
}

func (p pod) String() string { return p.Namespace + "/" + p.Name }

// parseArgs reads CNI_ARGS: `KEY=VALUE` pairs between semicolons.
func parseArgs(args string) (pod, *types.Error) {
	var p pod
	if args == "" {
		return p, nil
	}
	for _, pair := range strings.Split(args, ";") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return p, types.NewError(types.ErrInvalidEnvironmentVariables,
				fmt.Sprintf("heddle: CNI_ARGS pair %q: expected KEY=VALUE", pair), "")
		}
		switch key {
		case "K8S_POD_NAMESPACE":
			p.Namespace = value
		case "K8S_POD_NAME":
			p.Name = value
		case "K8S_POD_UID":
			p.UID = value
		}
	}
	return p, nil
}
