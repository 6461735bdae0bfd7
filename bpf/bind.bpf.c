/* Binding: a steered connection has the application's port as its own local port, so that an application that starts
 * again would find the port taken while the worker has connections there (or only TIME_WAITs). With SO_REUSEADDR on
 * both sides the kernel lets it have the port; the worker's listeners set it themselves, this sets it for the others.
 * Two listeners on one port still exclude each other. bpf_setsockopt knows SO_REUSEADDR from Linux 6.1 on.
 * Accepted connections inherit TCP_NODELAY: answers reach the worker at once (see send_at_once in outbound.bpf.c). */
#include "heddle.h"

static __always_inline int share_port(struct bpf_sock_addr *ctx)
{
	if (ctx->type != SOCK_STREAM || !ctx->user_port)
		return ALLOW;

	__u64 netns = bpf_get_netns_cookie(ctx);
	struct pod *pod = bpf_map_lookup_elem(&pods, &netns);

	if (!pod || !(pod->flags & POD_INBOUND))
		return ALLOW;

	int on = 1;

	bpf_setsockopt(ctx, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	count(bpf_setsockopt(ctx, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) ? BIND_NOT_SHARED : BIND_SHARED);
	return ALLOW;
}

SEC("cgroup/bind4")
int heddle_bind4(struct bpf_sock_addr *ctx)
{
	return share_port(ctx);
}

SEC("cgroup/bind6")
int heddle_bind6(struct bpf_sock_addr *ctx)
{
	return share_port(ctx);
}
