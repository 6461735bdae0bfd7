/* Outbound: connect() of an application in a meshed pod goes to the pod's own address at the outbound port, where
 * sk_lookup (inbound.bpf.c) hands it to the worker. Not to 127.0.0.1: the application's own address stays true, and
 * nothing in the pod can collide with the port. The socket keeps where it was going; getpeername() answers that. */
#include "heddle.h"

/* Is the current task a worker? By what the kernel knows of it, never by uid or mark, which a pod can choose. */
static __always_inline bool is_worker(void)
{
	__u64 cgroup = bpf_get_current_cgroup_id();

	if (bpf_map_lookup_elem(&exempt_cgroups, &cgroup))
		return true;

	__u32 zero = 0;
	__u32 *levels = bpf_map_lookup_elem(&exempt_levels, &zero);

	if (levels && *levels) {
#pragma unroll
		for (int level = 1; level <= EXEMPT_LEVELS_MAX; level++) {
			if (!(*levels & (1U << level)))
				continue;
			cgroup = bpf_get_current_ancestor_cgroup_id(level);
			if (cgroup && bpf_map_lookup_elem(&exempt_cgroups, &cgroup))
				return true;
		}
	}

	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	__u32 *uid = bpf_map_lookup_elem(&exempt_tgids, &tgid);

	return uid && *uid == (__u32)bpf_get_current_uid_gid();
}

static __always_inline enum outcome decide_outbound(__u64 netns, const struct pod *pod, const struct original *original)
{
	const struct address *address = &original->address;
	bool is_v4 = original->family == AF_INET;

	/* 0.0.0.0 and :: mean this host to connect(). */
	if (is_loopback(address) || is_unspecified(address))
		return OUTBOUND_SKIPPED_LOOPBACK;
	if (is_metadata_service(address))
		return OUTBOUND_SKIPPED_METADATA;
	if (is_worker())
		return OUTBOUND_SKIPPED_WORKER;
	if (is_own_address(netns, address))
		return OUTBOUND_SKIPPED_OWN_ADDRESS;
	if (is_skipped_port(netns, DIRECTION_OUTBOUND, original->port))
		return OUTBOUND_SKIPPED_PORT;
	if (is_skipped_network(netns, DIRECTION_OUTBOUND, address))
		return OUTBOUND_SKIPPED_NETWORK;
	/* Otherwise redirected all the same: the client then sees "connection refused" and not "not permitted". */
	if ((pod->flags & POD_FAIL_OPEN) && !has_listener(pod, is_v4 ? LISTENER_OUTBOUND4 : LISTENER_OUTBOUND6))
		return OUTBOUND_SKIPPED_NO_LISTENER;
	/* The worker would need the scope to dial it, which does not travel. */
	if (!is_v4 && is_ipv6_link_local(address))
		return pod->flags & POD_FAIL_OPEN ? OUTBOUND_SKIPPED_LINK_LOCAL : OUTBOUND_REFUSED_LINK_LOCAL;
	/* Nowhere to redirect to. Mostly there is no route either, but a link-local source can reach its neighbours. */
	if (!(pod->flags & (is_v4 ? POD_HAS_IPV4 : POD_HAS_IPV6)))
		return pod->flags & POD_FAIL_OPEN ? OUTBOUND_SKIPPED_NO_FAMILY : OUTBOUND_REFUSED_NO_FAMILY;
	return OUTBOUND_REDIRECTED;
}

/* Loopback cannot be reached through another interface: an application's SO_BINDTODEVICE would time out. */
static __always_inline void unbind_device(struct bpf_sock_addr *ctx, struct bpf_sock *socket)
{
	char none[4] = {};

	if (socket->bound_dev_if)
		bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTODEVICE, none, sizeof(none));
}

/* Between application and worker a segment holds 64 KiB. With Nagle's algorithm the end of almost every message would
 * wait for an acknowledgement that the kernel delays by 40 ms, which between pods, with segments of 1,400 bytes, it
 * rarely does. Linux takes this option from 6.1 on; before, programs that do not set it themselves are slower. */
static __always_inline void send_at_once(struct bpf_sock_addr *ctx)
{
	int on = 1;

	bpf_setsockopt(ctx, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

/* Loopback at the outbound port, where nobody listens: the client sees "connection refused" and tries its next address.
 * "Not permitted", which a verdict would give, is what programs do not expect. */
static __always_inline int refuse(struct bpf_sock_addr *ctx, struct bpf_sock *socket, const struct pod *pod,
				  bool is_v4, const bool is_v6_socket)
{
	unbind_device(ctx, socket);
	if (!is_v6_socket) {
		ctx->user_ip4 = bpf_htonl(0x7f000001);
	} else if (is_v4) {
		ctx->user_ip6[3] = bpf_htonl(0x7f000001);
	} else {
		ctx->user_ip6[0] = 0;
		ctx->user_ip6[1] = 0;
		ctx->user_ip6[2] = 0;
		ctx->user_ip6[3] = bpf_htonl(1);
	}
	ctx->user_port = pod->outbound_port;
	return ALLOW;
}

static __always_inline int connect_outbound(struct bpf_sock_addr *ctx, const bool is_v6_socket)
{
	__u64 netns = bpf_get_netns_cookie(ctx);
	struct pod *pod = bpf_map_lookup_elem(&pods, &netns);

	if (!pod || !(pod->flags & POD_OUTBOUND))
		return ALLOW;
	if (ctx->type != SOCK_STREAM) {
		count(ctx->type == SOCK_DGRAM ? OUTBOUND_SKIPPED_UDP : OUTBOUND_SKIPPED_PROTOCOL);
		return ALLOW;
	}
	if (ctx->protocol != IPPROTO_TCP) {
		count(OUTBOUND_SKIPPED_PROTOCOL);
		return ALLOW;
	}

	struct bpf_sock *socket = ctx->sk;

	if (!socket)
		return REFUSE;

	struct original original = { .side = SIDE_CLIENT, .port = (__be16)ctx->user_port };

	if (is_v6_socket) {
		original.address.word[0] = ctx->user_ip6[0];
		original.address.word[1] = ctx->user_ip6[1];
		original.address.word[2] = ctx->user_ip6[2];
		original.address.word[3] = ctx->user_ip6[3];
		original.family = is_v4_mapped(&original.address) ? AF_INET : AF_INET6;
	} else {
		original.address.word[2] = bpf_htonl(0xffff);
		original.address.word[3] = ctx->user_ip4;
		original.family = AF_INET;
	}

	enum outcome outcome = decide_outbound(netns, pod, &original);

	if (outcome != OUTBOUND_REDIRECTED) {
		count(outcome);
		/* A socket may connect again after a failure: what it remembered is not true any more. */
		bpf_sk_storage_delete(&originals, socket);
		if (outcome == OUTBOUND_REFUSED_LINK_LOCAL || outcome == OUTBOUND_REFUSED_NO_FAMILY)
			return refuse(ctx, socket, pod, original.family == AF_INET, is_v6_socket);
		return ALLOW;
	}

	original.client_cookie = bpf_get_socket_cookie(ctx);
	original.client_cgroup = bpf_get_current_cgroup_id();

	struct original *stored = bpf_sk_storage_get(&originals, socket, &original, BPF_SK_STORAGE_GET_F_CREATE);

	if (!stored) {
		/* Never in clear for want of memory. */
		count(OUTBOUND_REFUSED_NO_MEMORY);
		return REFUSE;
	}
	*stored = original;
	unbind_device(ctx, socket);
	send_at_once(ctx);
	if (!is_v6_socket) {
		ctx->user_ip4 = pod->redirect4;
	} else if (original.family == AF_INET) {
		ctx->user_ip6[3] = pod->redirect4;
	} else {
		ctx->user_ip6[0] = pod->redirect6.word[0];
		ctx->user_ip6[1] = pod->redirect6.word[1];
		ctx->user_ip6[2] = pod->redirect6.word[2];
		ctx->user_ip6[3] = pod->redirect6.word[3];
	}
	ctx->user_port = pod->outbound_port;
	count(OUTBOUND_REDIRECTED);
	return ALLOW;
}

SEC("cgroup/connect4")
int heddle_connect4(struct bpf_sock_addr *ctx)
{
	return connect_outbound(ctx, false);
}

SEC("cgroup/connect6")
int heddle_connect6(struct bpf_sock_addr *ctx)
{
	return connect_outbound(ctx, true);
}

static __always_inline int tell_peer(struct bpf_sock_addr *ctx, const bool is_v6_socket)
{
	struct bpf_sock *socket = ctx->sk;

	if (!socket)
		return ALLOW;

	struct original *original = bpf_sk_storage_get(&originals, socket, 0, 0);

	/* The worker's accepted sockets have an original too; their peer is the application, as the kernel says. */
	if (!original || original->side != SIDE_CLIENT)
		return ALLOW;
	if (is_v6_socket) {
		ctx->user_ip6[0] = original->address.word[0];
		ctx->user_ip6[1] = original->address.word[1];
		ctx->user_ip6[2] = original->address.word[2];
		ctx->user_ip6[3] = original->address.word[3];
	} else {
		ctx->user_ip4 = original->address.word[3];
	}
	ctx->user_port = original->port;
	return ALLOW;
}

SEC("cgroup/getpeername4")
int heddle_getpeername4(struct bpf_sock_addr *ctx)
{
	return tell_peer(ctx, false);
}

SEC("cgroup/getpeername6")
int heddle_getpeername6(struct bpf_sock_addr *ctx)
{
	return tell_peer(ctx, true);
}
