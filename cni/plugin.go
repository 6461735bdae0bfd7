// ADD and CHECK: what is asked of the agent, and what happens when it does not answer. An unmeshed pod is never held
// up; a meshed pod never starts outside the mesh unnoticed.
package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// plugin is one execution: one verb, one container.
type plugin struct {
	log        *logger
	now        func() time.Time
	startedAt  time.Time
	cniVersion string
	isRemoved  bool
	// output is printed when the verb has succeeded, and only then.
	output []byte
}

// situation is what is known of the pod before the agent is asked.
type situation struct {
	args       *skel.CmdArgs
	config     *config
	pod        pod
	namespaces *namespaceSet
	verdict    verdict
	reason     string
}

// look reads the configuration strictly and classifies the pod.
func (p *plugin) look(args *skel.CmdArgs) (*situation, *types.Error) {
	c, failure := parseConfig(args.StdinData)
	p.cniVersion = c.cniVersion
	p.log.level = logLevels[c.logLevel]
	if failure != nil {
		return nil, failure
	}
	named, failure := parseArgs(args.Args)
	if failure != nil {
		return nil, failure
	}
	p.log.fields = []any{"containerId", args.ContainerID, "pod", named.String()}
	s := &situation{args: args, config: c, pod: named}
	set, err := readNamespaces(c.runDir)
	if err != nil {
		p.log.warn("read the set of meshed namespaces", "cause", err.Error())
	}
	s.namespaces = set
	s.verdict, s.reason = classify(c, named, set)
	return s, nil
}

func (p *plugin) add(args *skel.CmdArgs) error {
	s, failure := p.look(args)
	if failure != nil {
		return failure
	}
	output, failure := passResult(s.config.prevResult, s.config.cniVersion)
	if failure != nil {
		return failure
	}
	if s.verdict != pass {
		if failure := p.mesh(s); failure != nil {
			return failure
		}
	}
	p.output = output
	return nil
}

// mesh asks the agent to mesh the pod; nil also when the pod may start without.
func (p *plugin) mesh(s *situation) *types.Error {
	answer, ns, failure := p.consult("ADD", s)
	if failure != nil {
		return failure
	}
	if answer.err == nil {
		// Lines in the runtime's log are for pods of the mesh.
		write := p.log.debug
		if answer.reply.Outcome == "meshed" {
			write = p.log.info
		}
		write("ADD", "outcome", answer.reply.Outcome, "durationMs", p.elapsedMs())
		return nil
	}
	r := s.record(recordMissed, ns, answer.err, p.now())
	if s.verdict == askUnmeshed {
		// Unmeshed pods never depend on the agent: what cannot be recorded is only logged.
		p.log.warn("pod passes without the mesh: recorded for late enrolment", "cause", r.Cause)
		if err := writeRecord(s.config.runDir, r); err != nil {
			p.log.warn("record the pod for late enrolment", "cause", err.Error())
		}
		return nil
	}
	if isOpen(s.config, s.pod, s.namespaces) {
		r.Kind = recordOpen
		err := writeRecord(s.config.runDir, r)
		if err == nil {
			p.log.warn("meshed pod starts without the mesh, as its policy on-agent-down says", "cause", r.Cause)
			return nil
		}
		// Open, but never unnoticed: without the record nobody would enrol it later.
		r.Cause = fmt.Sprintf("%s; record the open pod: %v", r.Cause, err)
	}
	return s.agentDown(r.Cause)
}

func (p *plugin) check(args *skel.CmdArgs) error {
	s, failure := p.look(args)
	if failure != nil {
		return failure
	}
	if s.verdict == pass {
		return nil
	}
	if !hasResult(s.config.prevResult) {
		return types.NewError(types.ErrInvalidNetworkConfig, "heddle: no prevResult: CHECK expects the result of ADD", "")
	}
	answer, _, failure := p.consult("CHECK", s)
	if failure != nil {
		return failure
	}
	isRecorded := hasRecord(s.config.runDir, recordMissed, args.ContainerID) ||
		hasRecord(s.config.runDir, recordOpen, args.ContainerID)
	if answer.err == nil || s.verdict == askUnmeshed || isRecorded {
		return nil
	}
	return s.agentDown(answer.err.Error())
}

// answered holds the agent's decision, or why there is none.
type answered struct {
	reply *reply
	err   error
}

// consult asks the agent. A failure is the agent's own decision, or something wrong with the request itself.
func (p *plugin) consult(op string, s *situation) (answered, uint64, *types.Error) {
	ips, failure := addresses(s.config.prevResult)
	if failure != nil {
		return answered{}, 0, failure
	}
	ns, failure := openNetns(s.args.Netns)
	if failure != nil {
		return answered{}, 0, failure
	}
	defer ns.file.Close()
	w := waits{connect: s.config.limits.connect, accept: s.config.limits.accept, whole: s.config.limits.add}
	if s.verdict == askMeshed {
		// A busy agent is worth waiting for where the alternative is a retry of the whole sandbox.
		w.accept *= 3
	}
	answer, err := ask(s.config.runDir, request{
		Op: op, ContainerID: s.args.ContainerID, IfName: s.args.IfName, Network: s.config.network,
		NetnsPath: s.args.Netns, NetnsInode: ns.inode, Pod: s.pod, Annotations: ours(s.config.annotations), IPs: ips,
	}, ns, w)
	if err != nil {
		return answered{err: err}, ns.inode, nil
	}
	for _, warning := range answer.Warnings {
		p.log.warn(warning)
	}
	if answer.isUndecided() {
		return answered{err: fmt.Errorf("the agent could not decide: code %d: %s", *answer.Code, answer.Message)}, ns.inode, nil
	}
	if *answer.Code != 0 {
		return answered{}, ns.inode, types.NewError(*answer.Code, withToken(answer.Message), answer.Details)
	}
	return answered{reply: answer}, ns.inode, nil
}

// record describes the attachment for the agent that comes back.
func (s *situation) record(kind string, inode uint64, cause error, at time.Time) record {
	ips, failure := addresses(s.config.prevResult)
	if failure != nil {
		ips = []string{}
	}
	return record{
		V: messageVersion, Kind: kind, ContainerID: s.args.ContainerID, IfName: s.args.IfName, Network: s.config.network,
		NetnsPath: s.args.Netns, NetnsInode: inode, Pod: s.pod, Annotations: ours(s.config.annotations), IPs: ips,
		Cause: cause.Error(), TimeMs: at.UnixMilli(), PluginVersion: pluginVersion,
	}
}

// agentDown is all that a user sees of the matter, in the events of the pod: cause and remedy.
func (s *situation) agentDown(cause string) *types.Error {
	return types.NewError(types.ErrTryAgainLater, fmt.Sprintf(
		"heddle: pod %q is meshed (%s) and the node's agent does not answer: %s: the runtime tries again; see that the agent "+
			"of this node is running, or let pods of the namespace start without it by %s: open",
		s.pod, s.reason, cause, annotationOnAgentDown), "")
}

func (p *plugin) elapsedMs() int64 { return p.now().Sub(p.startedAt).Milliseconds() }

// ours keeps the annotations that speak to the mesh; nil stays nil ("the runtime does not hand them over").
func ours(annotations map[string]string) map[string]string {
	if annotations == nil {
		return nil
	}
	kept := map[string]string{}
	for key, value := range annotations {
		domain, _, _ := strings.Cut(key, "/")
		for _, suffix := range []string{"linkerd.io", "heddle.dev"} {
			if domain == suffix || strings.HasSuffix(domain, "."+suffix) {
				kept[key] = value
			}
		}
	}
	return kept
}

func withToken(message string) string {
	if strings.HasPrefix(message, "heddle: ") {
		return message
	}
	if message == "" {
		message = "the agent gave no reason"
	}
	return "heddle: " + message
}
