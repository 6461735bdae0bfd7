// heddle-cni is the CNI plugin of Heddle: chained behind the network plugins, it asks the node's agent to mesh the pod
// and hands the previous result on untouched. It has no kubeconfig and calls no API server. Spec: CNI 1.1.0, verbs ADD,
// CHECK, DEL, GC, STATUS, VERSION. Standard output is written once, at the end, whole or not at all.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// pluginVersion is the version of the whole product; a test keeps it equal to package.json.
const pluginVersion = "0.1.0"

// delWatchdog ends a DEL that something has stalled (a file system, standard input): DEL answers within a second.
const delWatchdog = 950 * time.Millisecond

var supported = version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

func main() {
	os.Exit(run(os.Getenv("CNI_COMMAND"), os.Stdout, os.Stderr))
}

// run executes the verb of the environment and returns the exit status.
func run(command string, stdout, stderr io.Writer) int {
	if command == "DEL" {
		time.AfterFunc(delWatchdog, func() { os.Exit(0) })
	}
	p := &plugin{log: newLogger(stderr), now: time.Now, startedAt: time.Now()}
	failure := skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add: p.add, Check: p.check, Del: p.del, GC: p.gc, Status: p.status,
	}, supported, "CNI plugin heddle-cni "+pluginVersion)
	if failure != nil {
		return p.fail(command, failure, stdout)
	}
	if _, err := stdout.Write(p.output); err != nil {
		p.log.error("write the result", "cause", err.Error())
		return 1
	}
	return 0
}

// fail prints the error as the specification wants it (section "Error"). A DEL never fails: the runtime would repeat it
// for ever and keep the pod from going away, so what cannot be done now is left to the agent.
func (p *plugin) fail(command string, failure *types.Error, stdout io.Writer) int {
	message := failure.Msg
	if !strings.HasPrefix(message, "heddle: ") {
		message = "heddle: " + message
	}
	if command == "DEL" {
		p.log.warn("DEL goes on despite an error", "cause", message, "details", failure.Details)
		if p.isRemoved {
			return 0
		}
		p.delUnparsed(os.Getenv("CNI_CONTAINERID"), os.Getenv("CNI_IFNAME"), message)
		return 0
	}
	report := struct {
		CNIVersion string `json:"cniVersion"`
		Code       uint   `json:"code"`
		Msg        string `json:"msg"`
		Details    string `json:"details,omitempty"`
	}{p.cniVersion, failure.Code, message, failure.Details}
	if report.CNIVersion == "" {
		report.CNIVersion = version.Current()
	}
	encoded, err := json.Marshal(report)
	if err != nil {
		p.log.error("encode the error", "cause", err.Error())
		return 1
	}
	if _, err := fmt.Fprintf(stdout, "%s\n", encoded); err != nil {
		p.log.error("write the error", "cause", err.Error())
	}
	return 1
}
