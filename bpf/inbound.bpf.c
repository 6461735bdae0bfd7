/* Inbound: new connections to a pod's address go to the worker's listener, without translation: the accepted socket's
 * local address is the original destination. The same program hands redirected outbound connections, which arrive at
 * the outbound port of the pod's own address, to the outbound listener. One link per pod namespace. */
#include "heddle.h"

/* clang otherwise builds a pointer into the context and adds to it, which the verifier refuses. */
#define READ(ctx, field) (*(volatile __u32 *)&(ctx)->field)

#define READ_LOOKUP_ADDRESS(ctx, end, address)                                          \
	do {                                                                             \
		__u32 v4 = READ(ctx, end##_ip4);                                         \
		__u32 w0 = READ(ctx, end##_ip6[0]);                                      \
		__u32 w1 = READ(ctx, end##_ip6[1]);                                      \
		__u32 w2 = READ(ctx, end##_ip6[2]);                                      \
		__u32 w3 = READ(ctx, end##_ip6[3]);                                      \
		(address).word[0] = is_v6 ? w0 : 0;                                      \
		(address).word[1] = is_v6 ? w1 : 0;                                      \
		(address).word[2] = is_v6 ? w2 : bpf_htonl(0xffff);                      \
		(address).word[3] = is_v6 ? w3 : v4;                                     \
	} while (0)

/* Gives the connection to a listener of the pod. */
static __always_inline int steer(struct bpf_sk_lookup *ctx, const struct pod *pod, __u32 listener, bool is_outbound)
{
	__u32 slot = pod->slot * LISTENERS_PER_POD + listener;
	struct bpf_sock *socket = bpf_map_lookup_elem(&listeners, &slot);

	if (!socket) {
		if (!is_outbound && (pod->flags & POD_FAIL_OPEN)) {
			count(INBOUND_SKIPPED_NO_LISTENER);
			return SK_PASS;
		}
		/* Answered with RST: refused at once. */
		count(is_outbound ? OUTBOUND_REFUSED_NO_LISTENER : INBOUND_REFUSED_NO_LISTENER);
		return SK_DROP;
	}

	long error = bpf_sk_assign(ctx, socket, 0);

	bpf_sk_release(socket);
	if (error) {
		count(INBOUND_REFUSED_ASSIGN);
		return SK_DROP;
	}
	if (!is_outbound)
		count(INBOUND_STEERED);
	return SK_PASS;
}

SEC("sk_lookup")
int heddle_inbound(struct bpf_sk_lookup *ctx)
{
	if (ctx->protocol != IPPROTO_TCP)
		return SK_PASS;

	bool is_v6 = ctx->family == AF_INET6;
	struct address local = {};
	struct address remote = {};

	READ_LOOKUP_ADDRESS(ctx, local, local);
	READ_LOOKUP_ADDRESS(ctx, remote, remote);

	__u64 *owner = bpf_map_lookup_elem(&addresses, &local);

	if (!owner || !*owner) {
		if (!is_loopback(&local))
			count(INBOUND_SKIPPED_UNKNOWN_ADDRESS);
		return SK_PASS;
	}

	__u64 netns = *owner;
	struct pod *pod = bpf_map_lookup_elem(&pods, &netns);

	if (!pod)
		return SK_PASS;

	__be16 port = bpf_htons((__u16)ctx->local_port);

	/* From within the pod? Not to be told by ingress_ifindex: for packets to the pod's own address the kernel reports
	 * the device of the route, eth0, not lo. From outside, such a source is a martian. */
	if (is_loopback(&remote) || is_own_address(netns, &remote)) {
		if (port == pod->outbound_port && (pod->flags & POD_OUTBOUND))
			return steer(ctx, pod, is_v6 ? LISTENER_OUTBOUND6 : LISTENER_OUTBOUND4, true);
		count(INBOUND_SKIPPED_OWN_ADDRESS);
		return SK_PASS;
	}
	if (!(pod->flags & POD_INBOUND))
		return SK_PASS;
	if (is_skipped_port(netns, DIRECTION_INBOUND, port)) {
		count(INBOUND_SKIPPED_PORT);
		return SK_PASS;
	}
	if (is_skipped_network(netns, DIRECTION_INBOUND, &remote)) {
		count(INBOUND_SKIPPED_NETWORK);
		return SK_PASS;
	}
	return steer(ctx, pod, is_v6 ? LISTENER_INBOUND6 : LISTENER_INBOUND4, false);
}
