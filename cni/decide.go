// What can be known of a pod without the agent. The agent decides; this says whether it need be asked at all, and what
// holds when it does not answer: the injector's stamp first, then the set of meshed namespaces that the agent left.
package main

const (
	annotationMeshed      = "heddle.dev/meshed"
	annotationOnAgentDown = "config.heddle.dev/on-agent-down"
	annotationInject      = "linkerd.io/inject"
)

type verdict int

const (
	// pass: certainly not a pod of this mesh; the agent is not asked.
	pass verdict = iota
	// askUnmeshed: the agent is asked; without an answer the pod is unmeshed, and recorded for late enrolment.
	askUnmeshed
	// askMeshed: the agent is asked; without an answer the pod must wait, or its namespace says otherwise.
	askMeshed
)

// classify returns the verdict and, for people, what it rests on.
func classify(c *config, p pod, namespaces *namespaceSet) (verdict, string) {
	if p.Namespace == "" || p.Name == "" {
		return pass, "no Kubernetes pod in CNI_ARGS"
	}
	stamp := c.annotations[annotationMeshed]
	if stamp != "" {
		if c.controlPlaneNamespace != "" && stamp != c.controlPlaneNamespace {
			return pass, "annotation " + annotationMeshed + " names control plane " + stamp
		}
		return askMeshed, "annotation " + annotationMeshed
	}
	if p.Namespace == c.controlPlaneNamespace {
		return pass, "the control plane's own namespace"
	}
	hasAnnotations := c.annotations != nil
	inject := c.annotations[annotationInject]
	if inject == "disabled" {
		return pass, "annotation " + annotationInject
	}
	if namespaces.isMeshed(p.Namespace) {
		return askMeshed, "namespace " + p.Namespace
	}
	if hasAnnotations && inject == "" && namespaces.isUnmeshed(p.Namespace) {
		return pass, "namespace " + p.Namespace
	}
	return askUnmeshed, "neither stamp nor namespace"
}

// isOpen tells whether a meshed pod may start without the agent. The namespace's word, which the agent left, wins over
// the pod's annotation: a pod must not loosen what its namespace demands.
func isOpen(c *config, p pod, namespaces *namespaceSet) bool {
	if policy := namespaces.onAgentDown(p.Namespace); policy != "" {
		return policy == "open"
	}
	return c.annotations[annotationOnAgentDown] == "open"
}
