/* The original destination's way from the application's socket to the one the worker accepts: sockops carries it over
 * at the handshake, getsockopt(SO_ORIGINAL_DST) hands it out. A worker needs no capability for that, and the same call
 * works behind nftables. Attached at the root: the accepted socket belongs to the cgroup of the listener's maker. */
#include "heddle.h"

/* The address of one end. IPv4 connections of IPv6 sockets count as IPv4: the other end may be an IPv4 socket.
 * Reads go through volatile: clang otherwise folds the two families into arithmetic on the context pointer, which the
 * verifier refuses. */
#define READ_ADDRESS(ctx, end, address)                                                 \
	do {                                                                             \
		__u32 v4 = *(volatile __u32 *)&(ctx)->end##_ip4;                         \
		__u32 w0 = *(volatile __u32 *)&(ctx)->end##_ip6[0];                      \
		__u32 w1 = *(volatile __u32 *)&(ctx)->end##_ip6[1];                      \
		__u32 w2 = *(volatile __u32 *)&(ctx)->end##_ip6[2];                      \
		__u32 w3 = *(volatile __u32 *)&(ctx)->end##_ip6[3];                      \
		bool is_v4 = (ctx)->family == AF_INET;                                   \
		(address).word[0] = is_v4 ? 0 : w0;                                      \
		(address).word[1] = is_v4 ? 0 : w1;                                      \
		(address).word[2] = is_v4 ? bpf_htonl(0xffff) : w2;                      \
		(address).word[3] = is_v4 ? v4 : w3;                                     \
	} while (0)

/* The SYN is about to leave: local address and port are known. */
static __always_inline void remember(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *socket = ctx->sk;

	if (!socket)
		return;

	struct original *original = bpf_sk_storage_get(&originals, socket, 0, 0);

	if (!original || original->side != SIDE_CLIENT)
		return;

	struct flow flow = { .netns = bpf_get_netns_cookie(ctx) };
	struct original copy = *original;

	READ_ADDRESS(ctx, local, flow.source);
	flow.source_port = bpf_htons((__u16)ctx->local_port);
	bpf_map_update_elem(&pending, &flow, &copy, BPF_ANY);
}

/* The handshake of an accepted socket is complete. */
static __always_inline void recall(struct bpf_sock_ops *ctx)
{
	struct flow flow = { .netns = bpf_get_netns_cookie(ctx) };
	struct pod *pod = bpf_map_lookup_elem(&pods, &flow.netns);

	if (!pod || bpf_htons((__u16)ctx->local_port) != pod->outbound_port)
		return;

	struct bpf_sock *socket = ctx->sk;

	if (!socket)
		return;
	READ_ADDRESS(ctx, remote, flow.source);
	flow.source_port = bpf_htons((__u16)bpf_ntohl(ctx->remote_port));

	struct original *original = bpf_map_lookup_elem(&pending, &flow);

	if (!original) {
		/* Dialled by hand, or pushed out of the map: the worker finds no destination and drops it. */
		count(OUTBOUND_ACCEPTED_UNKNOWN);
		return;
	}

	struct original copy = *original;

	copy.side = SIDE_ACCEPTED;
	bpf_sk_storage_get(&originals, socket, &copy, BPF_SK_STORAGE_GET_F_CREATE);
	bpf_map_delete_elem(&pending, &flow);
	count(OUTBOUND_ACCEPTED);
}

/* A connection that is not redirected starts from a port that a redirected one may have left behind. */
static __always_inline void forget(struct bpf_sock_ops *ctx)
{
	struct flow flow = { .netns = bpf_get_netns_cookie(ctx) };
	struct pod *pod = bpf_map_lookup_elem(&pods, &flow.netns);

	if (!pod || bpf_htons((__u16)bpf_ntohl(ctx->remote_port)) != pod->outbound_port)
		return;

	struct bpf_sock *socket = ctx->sk;

	if (!socket || bpf_sk_storage_get(&originals, socket, 0, 0))
		return;
	READ_ADDRESS(ctx, local, flow.source);
	flow.source_port = bpf_htons((__u16)ctx->local_port);
	bpf_map_delete_elem(&pending, &flow);
}

SEC("sockops")
int heddle_sockops(struct bpf_sock_ops *ctx)
{
	__u32 event = ctx->op;

	if (event == BPF_SOCK_OPS_TCP_CONNECT_CB) {
		forget(ctx);
		remember(ctx);
	} else if (event == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
		recall(ctx);
	}
	return 1;
}

struct sockaddr_v4 {
	__u16 family;
	__be16 port;
	__be32 address;
	__u8 zero[8];
};

struct sockaddr_v6 {
	__u16 family;
	__be16 port;
	__be32 flow_info;
	struct address address;
	__u32 scope;
};

/* Above this the kernel cannot show the buffer to a program. */
#define OPTION_BYTES_MAX 4096

SEC("cgroup/getsockopt")
int heddle_getsockopt(struct bpf_sockopt *ctx)
{
	if (ctx->optname != SO_ORIGINAL_DST || (ctx->level != SOL_IP && ctx->level != SOL_IPV6)) {
		/* Length 0 tells the kernel to leave its own answer alone; a longer one than a page it would refuse. */
		if (ctx->optlen > OPTION_BYTES_MAX)
			ctx->optlen = 0;
		return ALLOW;
	}

	struct bpf_sock *socket = ctx->sk;

	if (!socket)
		return ALLOW;

	struct original *original = bpf_sk_storage_get(&originals, socket, 0, 0);

	if (!original || original->side != SIDE_ACCEPTED)
		return ALLOW;

	void *end = ctx->optval_end;

	if (ctx->level == SOL_IP && original->family == AF_INET) {
		struct sockaddr_v4 *answer = ctx->optval;

		if ((void *)(answer + 1) > end)
			return ALLOW;
		answer->family = AF_INET;
		answer->port = original->port;
		answer->address = original->address.word[3];
		__builtin_memset(answer->zero, 0, sizeof(answer->zero));
		ctx->optlen = sizeof(*answer);
	} else if (ctx->level == SOL_IPV6 && original->family == AF_INET6) {
		struct sockaddr_v6 *answer = ctx->optval;

		if ((void *)(answer + 1) > end)
			return ALLOW;
		answer->family = AF_INET6;
		answer->port = original->port;
		answer->flow_info = 0;
		answer->address = original->address;
		answer->scope = 0;
		ctx->optlen = sizeof(*answer);
	} else {
		return ALLOW;
	}
	/* clang would merge the two stores into one of 8 bytes, which the verifier refuses. */
	asm volatile("" ::: "memory");
	ctx->retval = 0;
	return ALLOW;
}
