// DEL, GC and STATUS. DEL never fails and needs neither the previous result nor a namespace: what the agent is not told
// now it finds as a tombstone. STATUS is well by default: an error here would turn the whole node NotReady.
package main

import (
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

func (p *plugin) del(args *skel.CmdArgs) error {
	c, failure := parseConfig(args.StdinData)
	p.cniVersion = c.cniVersion
	p.log.level = logLevels[c.logLevel]
	if failure != nil {
		p.log.warn("DEL goes on with what it understood of the configuration", "cause", failure.Msg)
	}
	named, failure := parseArgs(args.Args)
	if failure != nil {
		p.log.warn("DEL goes on with what it understood of CNI_ARGS", "cause", failure.Msg)
	}
	p.log.fields = []any{"containerId", args.ContainerID, "pod", named.String()}
	p.remove(c, args.ContainerID, args.IfName, named, args.Netns)
	p.isRemoved = true
	return nil
}

// delUnparsed removes what it can when the request as a whole was refused before the verb was reached.
func (p *plugin) delUnparsed(containerID, ifName, cause string) {
	if !containerIDPattern.MatchString(containerID) {
		return
	}
	c := defaultConfig()
	removeRecords(c.runDir, containerID)
	p.bury(c, record{ContainerID: containerID, IfName: ifName, Cause: cause})
}

func (p *plugin) remove(c *config, containerID, ifName string, named pod, netnsPath string) {
	removeRecords(c.runDir, containerID)
	answer, err := ask(c.runDir, request{
		Op: "DEL", ContainerID: containerID, IfName: ifName, Network: c.network, NetnsPath: netnsPath, Pod: named,
		Annotations: ours(c.annotations), IPs: []string{},
	}, nil, waits{connect: c.limits.connect, accept: c.limits.del, whole: c.limits.del})
	if err == nil && *answer.Code != 0 {
		err = fmt.Errorf("the agent answered with code %d: %s", *answer.Code, answer.Message)
	}
	if err == nil {
		if answer.Outcome == "removed" {
			p.log.info("DEL", "outcome", answer.Outcome, "durationMs", p.elapsedMs())
		}
		return
	}
	p.bury(c, record{
		ContainerID: containerID, IfName: ifName, Network: c.network, NetnsPath: netnsPath, Pod: named,
		Annotations: ours(c.annotations), Cause: err.Error(),
	})
}

// bury leaves a tombstone for the agent to reap.
func (p *plugin) bury(c *config, r record) {
	r.V, r.Kind, r.TimeMs, r.PluginVersion = messageVersion, recordTombstone, p.now().UnixMilli(), pluginVersion
	r.IPs = []string{}
	p.log.debug("DEL leaves a tombstone", "cause", r.Cause)
	if err := writeRecord(c.runDir, r); err != nil {
		p.log.warn("leave a tombstone: the agent compares with the runtime when it starts", "cause", err.Error())
	}
}

func (p *plugin) gc(args *skel.CmdArgs) error {
	c, failure := parseConfig(args.StdinData)
	p.cniVersion = c.cniVersion
	p.log.level = logLevels[c.logLevel]
	if failure != nil {
		return failure
	}
	if !c.hasValidAttachments {
		// Taken as "none is valid" it would remove every pod of the node from the mesh.
		return types.NewError(types.ErrInvalidNetworkConfig, `heddle: GC expects the field "cni.dev/valid-attachments"`, "")
	}
	valid := make([]requestAttachment, 0, len(c.validAttachments))
	living := map[string]bool{}
	for _, one := range c.validAttachments {
		valid = append(valid, requestAttachment(one))
		living[one.ContainerID] = true
	}
	pruneRecords(c.runDir, c.network, living)
	answer, err := ask(c.runDir, request{
		Op: "GC", Network: c.network, ValidAttachments: &valid, IPs: []string{},
	}, nil, waits{connect: c.limits.connect, accept: c.limits.accept, whole: c.limits.add})
	if err == nil && *answer.Code != 0 {
		return types.NewError(*answer.Code, withToken(answer.Message), answer.Details)
	}
	if err != nil {
		// Nothing is lost: the agent compares with the runtime when it comes back.
		p.log.warn("GC: the agent does not answer", "cause", err.Error())
	}
	return nil
}

func (p *plugin) status(args *skel.CmdArgs) error {
	c, failure := parseConfig(args.StdinData)
	p.cniVersion = c.cniVersion
	if failure != nil {
		return failure
	}
	if c.statusGate == "none" {
		return nil
	}
	ready, err := wasReady(c.runDir)
	if err != nil {
		p.log.warn("STATUS: read the agent's ready marker", "cause", err.Error())
	}
	if err != nil || ready {
		return nil
	}
	return types.NewError(50, "heddle: the agent has not been ready since the machine started: expected soon; "+
		"the gate is statusGate: firstBoot in the plugin's section", "")
}
