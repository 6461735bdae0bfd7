/* Limits, map layouts and helpers shared by the programs; agent/redirect/ebpf-layout.ts mirrors them and a test compares
 * the two. Any change of a layout raises PIN_SCHEMA there: maps of two schemas never meet.
 * Needs only UAPI headers and Linux 5.15 (netns cookie in sockops). */
#ifndef HEDDLE_H
#define HEDDLE_H

#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* Limits. */
/* One more than pods on a node: the agent's probe is one too. */
#define PODS_MAX 1025
#define ADDRESSES_MAX 8192
#define LISTENERS_PER_POD 4
#define SKIP_PORTS_MAX 131072
#define SKIP_NETWORKS_MAX 131072
#define PENDING_MAX 16384
#define EXEMPT_MAX 4096
/* Deepest cgroup below which a worker may have children of its own. */
#define EXEMPT_LEVELS_MAX 8
#define POD_UID_BYTES 64

/* From headers that do not compile for BPF. */
#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262
#define SOL_IP 0
#define SOL_SOCKET 1
#define SOL_IPV6 41
#define SO_REUSEADDR 2
#define SO_BINDTODEVICE 25
#define TCP_NODELAY 1
#define SO_ORIGINAL_DST 80

/* Verdicts of cgroup hooks. */
#define REFUSE 0
#define ALLOW 1

/* Structs. An address is 16 bytes in network order, IPv4 as ::ffff:a.b.c.d: one layout serves both families. */
struct address {
	__u32 word[4];
};

/* Bits of pod.flags. */
#define POD_OUTBOUND 1
#define POD_INBOUND 2
#define POD_FAIL_OPEN 4
#define POD_HAS_IPV4 8
#define POD_HAS_IPV6 16

struct pod {
	__u32 flags;
	/* Base of its listeners: slot * LISTENERS_PER_POD + enum listener. */
	__u32 slot;
	__be16 outbound_port;
	__u16 zero;
	/* Where outbound connections are sent: addresses of the pod itself. */
	__be32 redirect4;
	struct address redirect6;
	/* For the agent only: lets a new agent recognise what an old one attached. */
	char uid[POD_UID_BYTES];
};

enum listener {
	LISTENER_INBOUND4,
	LISTENER_INBOUND6,
	LISTENER_OUTBOUND4,
	LISTENER_OUTBOUND6,
};

/* In a skip key: whose connections the entry is about. */
enum direction {
	DIRECTION_OUTBOUND = 1,
	DIRECTION_INBOUND = 2,
};

/* Longest-prefix keys: all of a pod and direction, then a prefix of the port or of the network. */
struct port_key {
	__u32 prefix_bits;
	__u8 netns[8];
	__u8 direction;
	__u8 zero;
	__u8 port[2];
};
#define PORT_KEY_BITS (8 * (sizeof(struct port_key) - 4))

struct network_key {
	__u32 prefix_bits;
	__u8 netns[8];
	__u8 direction;
	__u8 zero[3];
	__u8 address[16];
};
#define NETWORK_KEY_BITS (8 * (sizeof(struct network_key) - 4))

enum redirect_side {
	SIDE_CLIENT = 1,
	SIDE_ACCEPTED = 2,
};

/* Kept in the socket itself, so it dies with it. */
struct original {
	struct address address;
	__be16 port;
	/* As the connection is on the wire: AF_INET for v4-mapped addresses too. */
	__u16 family;
	__u32 side;
	__u64 client_cookie;
	__u64 client_cgroup;
};

struct flow {
	__u64 netns;
	struct address source;
	__be16 source_port;
	__u16 zero[3];
};

/* Counters, one per outcome; the agent exports them under these names. */
enum outcome {
	OUTBOUND_REDIRECTED,
	OUTBOUND_SKIPPED_LOOPBACK,
	OUTBOUND_SKIPPED_OWN_ADDRESS,
	OUTBOUND_SKIPPED_METADATA,
	OUTBOUND_SKIPPED_WORKER,
	OUTBOUND_SKIPPED_PORT,
	OUTBOUND_SKIPPED_NETWORK,
	OUTBOUND_SKIPPED_NO_LISTENER,
	OUTBOUND_SKIPPED_LINK_LOCAL,
	OUTBOUND_SKIPPED_NO_FAMILY,
	OUTBOUND_SKIPPED_UDP,
	OUTBOUND_SKIPPED_PROTOCOL,
	OUTBOUND_REFUSED_NO_LISTENER,
	OUTBOUND_REFUSED_LINK_LOCAL,
	OUTBOUND_REFUSED_NO_FAMILY,
	OUTBOUND_REFUSED_NO_MEMORY,
	OUTBOUND_ACCEPTED,
	OUTBOUND_ACCEPTED_UNKNOWN,
	INBOUND_STEERED,
	INBOUND_SKIPPED_OWN_ADDRESS,
	INBOUND_SKIPPED_UNKNOWN_ADDRESS,
	INBOUND_SKIPPED_PORT,
	INBOUND_SKIPPED_NETWORK,
	INBOUND_SKIPPED_NO_LISTENER,
	INBOUND_REFUSED_NO_LISTENER,
	INBOUND_REFUSED_ASSIGN,
	BIND_SHARED,
	BIND_NOT_SHARED,
	OUTCOMES,
};

/* Maps. */

/* Network namespace cookie -> the pod in it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PODS_MAX);
	__type(key, __u64);
	__type(value, struct pod);
} pods SEC(".maps");

/* A pod's own address -> its namespace cookie. sk_lookup programs have no netns cookie, so they know the pod by this;
 * 0 marks an address that more than one pod has, which belongs to none. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ADDRESSES_MAX);
	__type(key, struct address);
	__type(value, __u64);
} addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, PODS_MAX * LISTENERS_PER_POD);
	__type(key, __u32);
	__type(value, __u64);
} listeners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, SKIP_PORTS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct port_key);
	__type(value, __u32);
} skip_ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, SKIP_NETWORKS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network_key);
	__type(value, __u32);
} skip_networks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct original);
} originals SEC(".maps");

/* From the SYN to the accepted socket. Least recently used entries give way: such a connection is accepted without an
 * original destination, and the worker drops it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, PENDING_MAX);
	__type(key, struct flow);
	__type(value, struct original);
} pending SEC(".maps");

/* Workers by cgroup id. The value is the depth of the cgroup, for the agent only. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, EXEMPT_MAX);
	__type(key, __u64);
	__type(value, __u32);
} exempt_cgroups SEC(".maps");

/* Workers by process, where all processes share one cgroup2. The value is the worker's uid: a process that gets the
 * number of a dead worker runs as another user. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, EXEMPT_MAX);
	__type(key, __u32);
	__type(value, __u32);
} exempt_tgids SEC(".maps");

/* [0]: bit n is set when exempt_cgroups has cgroups n levels below the root. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} exempt_levels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OUTCOMES);
	__type(key, __u32);
	__type(value, __u64);
} outcomes SEC(".maps");

/* Helpers. */
static __always_inline void count(enum outcome outcome)
{
	__u32 key = outcome;
	__u64 *counter = bpf_map_lookup_elem(&outcomes, &key);

	if (counter)
		(*counter)++;
}

static __always_inline bool is_v4_mapped(const struct address *address)
{
	return !address->word[0] && !address->word[1] && address->word[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_loopback(const struct address *address)
{
	if (is_v4_mapped(address))
		return (address->word[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	return !address->word[0] && !address->word[1] && !address->word[2] && address->word[3] == bpf_htonl(1);
}

static __always_inline bool is_unspecified(const struct address *address)
{
	if (is_v4_mapped(address))
		return !address->word[3];
	return !address->word[0] && !address->word[1] && !address->word[2] && !address->word[3];
}

/* fe80::/10; the address means nothing without its interface. */
static __always_inline bool is_ipv6_link_local(const struct address *address)
{
	return (address->word[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
}

/* The cloud's metadata service: 169.254.169.254 and, on AWS, fd00:ec2::254. It answers for the node it is asked from,
 * and hands out credentials: nothing may stand between. */
static __always_inline bool is_metadata_service(const struct address *address)
{
	if (is_v4_mapped(address))
		return address->word[3] == bpf_htonl(0xa9fea9fe);
	return address->word[0] == bpf_htonl(0xfd000ec2) && !address->word[1] && !address->word[2] &&
	       address->word[3] == bpf_htonl(0x254);
}

static __always_inline bool is_own_address(__u64 netns, const struct address *address)
{
	__u64 *owner = bpf_map_lookup_elem(&addresses, address);

	return owner && *owner == netns;
}

static __always_inline bool is_skipped_port(__u64 netns, enum direction direction, __be16 port)
{
	struct port_key key = { .prefix_bits = PORT_KEY_BITS, .direction = direction };

	__builtin_memcpy(key.netns, &netns, sizeof(key.netns));
	__builtin_memcpy(key.port, &port, sizeof(key.port));
	return bpf_map_lookup_elem(&skip_ports, &key);
}

static __always_inline bool is_skipped_network(__u64 netns, enum direction direction, const struct address *address)
{
	struct network_key key = { .prefix_bits = NETWORK_KEY_BITS, .direction = direction };

	__builtin_memcpy(key.netns, &netns, sizeof(key.netns));
	__builtin_memcpy(key.address, address, sizeof(key.address));
	return bpf_map_lookup_elem(&skip_networks, &key);
}

/* True when the pod's listening socket exists; closing its last descriptor empties the slot. */
static __always_inline bool has_listener(const struct pod *pod, enum listener listener)
{
	__u32 slot = pod->slot * LISTENERS_PER_POD + listener;
	struct bpf_sock *socket = bpf_map_lookup_elem(&listeners, &slot);

	if (!socket)
		return false;
	bpf_sk_release(socket);
	return true;
}

#endif
