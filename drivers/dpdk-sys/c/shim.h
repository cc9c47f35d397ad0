/*
 * What the driver calls of DPDK that is an inline function, a macro, or a structure whose layout changes between releases.
 *
 * Everything is a static inline function: bindgen writes a wrapper for each, which is compiled with the flags that pkg-config gives for
 * the installed DPDK. The hot path crosses the language boundary once per burst, not once per field: a burst is an array of
 * `struct ionian_frame`, so that no code outside of this file knows what an mbuf looks like.
 */
#ifndef IONIAN_DPDK_SHIM_H
#define IONIAN_DPDK_SHIM_H

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include <rte_config.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_flow.h>
#include <rte_ip.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_udp.h>
#include <rte_version.h>

/* Frames of one call, at most: the arrays of mbuf pointers stand on the stack. */
#define IONIAN_BURST_MAX 256

/* What the device found in a received frame, and what it shall do for one that is sent. */
#define IONIAN_IP_GOOD 1u
#define IONIAN_IP_BAD 2u
#define IONIAN_L4_GOOD 4u
#define IONIAN_L4_BAD 8u
#define IONIAN_CHAINED 16u
#define IONIAN_IP_FILL 32u
#define IONIAN_UDP_FILL 64u
#define IONIAN_IS_IPV6 128u

/* Checksums that a device computes or checks. */
#define IONIAN_OFFLOAD_TX_IPV4 1u
#define IONIAN_OFFLOAD_TX_UDP 2u
#define IONIAN_OFFLOAD_RX_IPV4 4u
#define IONIAN_OFFLOAD_RX_UDP 8u

/* One frame in a burst: its mbuf, where its bytes are, how many there are (received) or may be (to be sent). */
struct ionian_frame {
	struct rte_mbuf *mbuf;
	uint8_t *data;
	uint32_t len;
	uint32_t flags;
	uint16_t l2_len;
	uint16_t l3_len;
};

/* What the driver needs to know of a port before it configures it. */
struct ionian_port_info {
	uint32_t max_rx_queues;
	uint32_t max_tx_queues;
	uint32_t min_mtu;
	uint32_t max_mtu;
	uint32_t max_rx_bytes;
	uint32_t offloads;
	uint32_t link_events;
	int32_t numa_node;
	char driver[64];
};

/* The error of the last call in this thread: the variable itself is local to a thread. */
static inline int ionian_errno(void) { return rte_errno; }

/* The number of this thread among those DPDK knows; UINT32_MAX for none. */
static inline uint32_t ionian_lcore(void) { return rte_lcore_id(); }

static inline uint32_t ionian_offloads(uint64_t rx, uint64_t tx)
{
	uint32_t offloads = 0;
	if (tx & RTE_ETH_TX_OFFLOAD_IPV4_CKSUM) offloads |= IONIAN_OFFLOAD_TX_IPV4;
	if (tx & RTE_ETH_TX_OFFLOAD_UDP_CKSUM) offloads |= IONIAN_OFFLOAD_TX_UDP;
	if (rx & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM) offloads |= IONIAN_OFFLOAD_RX_IPV4;
	if (rx & RTE_ETH_RX_OFFLOAD_UDP_CKSUM) offloads |= IONIAN_OFFLOAD_RX_UDP;
	return offloads;
}

static inline int ionian_port_info(uint16_t port, struct ionian_port_info *out)
{
	struct rte_eth_dev_info info;
	int result;

	memset(&info, 0, sizeof(info));
	result = rte_eth_dev_info_get(port, &info);
	if (result != 0) return result;
	memset(out, 0, sizeof(*out));
	out->max_rx_queues = info.max_rx_queues;
	out->max_tx_queues = info.max_tx_queues;
	out->min_mtu = info.min_mtu;
	out->max_mtu = info.max_mtu;
	out->max_rx_bytes = info.max_rx_pktlen;
	out->offloads = ionian_offloads(info.rx_offload_capa, info.tx_offload_capa);
	out->link_events = (info.dev_flags != NULL && (*info.dev_flags & RTE_ETH_DEV_INTR_LSC)) ? 1 : 0;
	out->numa_node = rte_eth_dev_socket_id(port);
	if (info.driver_name != NULL) {
		strncpy(out->driver, info.driver_name, sizeof(out->driver) - 1);
	}
	return 0;
}

/* Queues, MTU and offloads of a stopped port. */
static inline int ionian_port_configure(uint16_t port, uint16_t rx_queues, uint16_t tx_queues, uint32_t mtu,
					uint32_t offloads, uint32_t link_events)
{
	struct rte_eth_conf conf;

	memset(&conf, 0, sizeof(conf));
	conf.rxmode.mtu = mtu;
	if (offloads & IONIAN_OFFLOAD_TX_IPV4) conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
	if (offloads & IONIAN_OFFLOAD_TX_UDP) conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
	if (offloads & IONIAN_OFFLOAD_RX_IPV4) conf.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
	if (offloads & IONIAN_OFFLOAD_RX_UDP) conf.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_UDP_CKSUM;
	conf.intr_conf.lsc = link_events ? 1 : 0;
	return rte_eth_dev_configure(port, rx_queues, tx_queues, &conf);
}

/* 1: the link is up, 0: it is down, negative: the device does not say. Speed in Mbit/s, UINT32_MAX for unknown. */
static inline int ionian_link(uint16_t port, uint32_t *speed_mbps)
{
	struct rte_eth_link link;
	int result;

	memset(&link, 0, sizeof(link));
	result = rte_eth_link_get_nowait(port, &link);
	if (result != 0) return result;
	*speed_mbps = link.link_speed;
	return link.link_status == RTE_ETH_LINK_UP ? 1 : 0;
}

/* Frames that the device missed for want of a place or a buffer, and those that it failed on. */
static inline int ionian_counts(uint16_t port, uint64_t *missed, uint64_t *errors)
{
	struct rte_eth_stats stats;
	int result;

	memset(&stats, 0, sizeof(stats));
	result = rte_eth_stats_get(port, &stats);
	if (result != 0) return result;
	*missed = stats.imissed + stats.rx_nombuf;
	*errors = stats.ierrors + stats.oerrors;
	return 0;
}

/* An mbuf pool with so many bytes of data room, headroom included; no private area. */
static inline struct rte_mempool *ionian_pool(const char *name, uint32_t mbufs, uint32_t cache, uint16_t room_bytes,
					      int numa_node)
{
	return rte_pktmbuf_pool_create(name, mbufs, cache, 0, room_bytes, numa_node);
}

/* Sends UDP datagrams for one port of IPv4 (or IPv6) to one queue. NULL with `error` set (positive) when the device refuses. */
static inline struct rte_flow *ionian_flow_udp(uint16_t port, uint16_t queue, uint16_t udp_port, int ipv6, int *error)
{
	struct rte_flow_attr attributes;
	struct rte_flow_item_udp udp, udp_mask;
	struct rte_flow_action_queue to;
	struct rte_flow_item pattern[4];
	struct rte_flow_action actions[2];
	struct rte_flow_error reason;
	struct rte_flow *flow;
	int result;

	memset(&attributes, 0, sizeof(attributes));
	memset(&udp, 0, sizeof(udp));
	memset(&udp_mask, 0, sizeof(udp_mask));
	memset(&pattern, 0, sizeof(pattern));
	memset(&actions, 0, sizeof(actions));
	memset(&reason, 0, sizeof(reason));
	memset(&to, 0, sizeof(to));
	attributes.ingress = 1;
	udp.hdr.dst_port = rte_cpu_to_be_16(udp_port);
	udp_mask.hdr.dst_port = UINT16_MAX;
	to.index = queue;
	pattern[0].type = RTE_FLOW_ITEM_TYPE_ETH;
	pattern[1].type = ipv6 ? RTE_FLOW_ITEM_TYPE_IPV6 : RTE_FLOW_ITEM_TYPE_IPV4;
	pattern[2].type = RTE_FLOW_ITEM_TYPE_UDP;
	pattern[2].spec = &udp;
	pattern[2].mask = &udp_mask;
	pattern[3].type = RTE_FLOW_ITEM_TYPE_END;
	actions[0].type = RTE_FLOW_ACTION_TYPE_QUEUE;
	actions[0].conf = &to;
	actions[1].type = RTE_FLOW_ACTION_TYPE_END;

	*error = 0;
	result = rte_flow_validate(port, &attributes, pattern, actions, &reason);
	if (result != 0) {
		*error = result < 0 ? -result : result;
		return NULL;
	}
	flow = rte_flow_create(port, &attributes, pattern, actions, &reason);
	if (flow == NULL) *error = rte_errno != 0 ? rte_errno : EIO;
	return flow;
}

static inline int ionian_flow_destroy(uint16_t port, struct rte_flow *flow)
{
	struct rte_flow_error reason;

	memset(&reason, 0, sizeof(reason));
	return rte_flow_destroy(port, flow, &reason);
}

/* Receives at most `count` frames. The caller owns their mbufs. */
static inline uint16_t ionian_rx(uint16_t port, uint16_t queue, struct ionian_frame *frames, uint16_t count)
{
	struct rte_mbuf *mbufs[IONIAN_BURST_MAX];
	uint16_t received, at;

	if (count > IONIAN_BURST_MAX) count = IONIAN_BURST_MAX;
	received = rte_eth_rx_burst(port, queue, mbufs, count);
	for (at = 0; at < received; at++) {
		struct rte_mbuf *mbuf = mbufs[at];
		struct ionian_frame *frame = &frames[at];
		uint64_t ip = mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK;
		uint64_t l4 = mbuf->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;

		frame->mbuf = mbuf;
		frame->data = rte_pktmbuf_mtod(mbuf, uint8_t *);
		frame->len = rte_pktmbuf_data_len(mbuf);
		frame->flags = mbuf->nb_segs > 1 ? IONIAN_CHAINED : 0;
		if (ip == RTE_MBUF_F_RX_IP_CKSUM_GOOD) frame->flags |= IONIAN_IP_GOOD;
		if (ip == RTE_MBUF_F_RX_IP_CKSUM_BAD) frame->flags |= IONIAN_IP_BAD;
		if (l4 == RTE_MBUF_F_RX_L4_CKSUM_GOOD) frame->flags |= IONIAN_L4_GOOD;
		if (l4 == RTE_MBUF_F_RX_L4_CKSUM_BAD) frame->flags |= IONIAN_L4_BAD;
	}
	return received;
}

/* Takes `count` mbufs of a pool, all or none; `len` is the room of each. Returns 0, or a negative number for none. */
static inline int ionian_take(struct rte_mempool *pool, struct ionian_frame *frames, uint16_t count)
{
	struct rte_mbuf *mbufs[IONIAN_BURST_MAX];
	uint16_t at;

	if (count > IONIAN_BURST_MAX) return -EINVAL;
	if (rte_pktmbuf_alloc_bulk(pool, mbufs, count) != 0) return -ENOMEM;
	for (at = 0; at < count; at++) {
		frames[at].mbuf = mbufs[at];
		frames[at].data = rte_pktmbuf_mtod(mbufs[at], uint8_t *);
		frames[at].len = rte_pktmbuf_tailroom(mbufs[at]);
		frames[at].flags = 0;
	}
	return 0;
}

/* Sends from the front. Returns how many mbufs the device took; the caller keeps the others. */
static inline uint16_t ionian_tx(uint16_t port, uint16_t queue, const struct ionian_frame *frames, uint16_t count)
{
	struct rte_mbuf *mbufs[IONIAN_BURST_MAX];
	uint16_t at;

	if (count > IONIAN_BURST_MAX) count = IONIAN_BURST_MAX;
	for (at = 0; at < count; at++) {
		const struct ionian_frame *frame = &frames[at];
		struct rte_mbuf *mbuf = frame->mbuf;

		mbuf->data_len = (uint16_t)frame->len;
		mbuf->pkt_len = frame->len;
		mbuf->ol_flags = 0;
		if (frame->flags & (IONIAN_IP_FILL | IONIAN_UDP_FILL)) {
			mbuf->l2_len = frame->l2_len;
			mbuf->l3_len = frame->l3_len;
			mbuf->ol_flags |= (frame->flags & IONIAN_IS_IPV6) ? RTE_MBUF_F_TX_IPV6 : RTE_MBUF_F_TX_IPV4;
			if (frame->flags & IONIAN_IP_FILL) mbuf->ol_flags |= RTE_MBUF_F_TX_IP_CKSUM;
			if (frame->flags & IONIAN_UDP_FILL) mbuf->ol_flags |= RTE_MBUF_F_TX_UDP_CKSUM;
		}
		mbufs[at] = mbuf;
	}
	return rte_eth_tx_burst(port, queue, mbufs, count);
}

/* Gives mbufs back to their pools. */
static inline void ionian_give(const struct ionian_frame *frames, uint16_t count)
{
	struct rte_mbuf *mbufs[IONIAN_BURST_MAX];
	uint16_t at;

	if (count > IONIAN_BURST_MAX) count = IONIAN_BURST_MAX;
	for (at = 0; at < count; at++) mbufs[at] = frames[at].mbuf;
	rte_pktmbuf_free_bulk(mbufs, count);
}

/* Takes everything out of a ring of mbufs and gives it back to its pools. Returns how many there were. */
static inline uint32_t ionian_drain(struct rte_ring *ring)
{
	void *mbuf;
	uint32_t count = 0;

	while (rte_ring_dequeue(ring, &mbuf) == 0) {
		rte_pktmbuf_free((struct rte_mbuf *)mbuf);
		count++;
	}
	return count;
}

#endif
