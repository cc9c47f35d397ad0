//! The verbs of a real device, by libibverbs.
//!
//! # Safety model
//!
//! Objects of the library are raw pointers in tables of this device, made by the library and destroyed once, in the order
//! that it asks for (queue pairs, shared receive queues, completion queues, registrations, protection domain, context). The
//! library may be called from one thread at a time for one object; a device belongs to one thread. Work names slots of
//! arenas that are registered here, whose `Arc` is kept until the registration has ended; whether anybody borrows a slot's
//! bytes is the caller's promise. Chains of work requests are built in arrays of this device, by raw pointers: each request
//! points to the next one and to its element of the array of scatter entries.

mod objects;
mod open;
mod post;

use std::os::fd::RawFd;
use std::ptr;
use std::sync::Arc;

use ionian_driver_api::dma::Arena;
use ionian_verbs_sys as sys;

use crate::api::{
    Address, AsyncEvent, Completion, CqId, DeviceError, DeviceLimits, MrId, Permit, PostError,
    QpId, QpOptions, RecvWork, Remote, SendWork, SrqId, VerbsApi,
};
use objects::{Registration, Table};
pub use open::{DeviceOptions, RdmaOpenError};
use post::Chains;

/// An opened device: one port, one protection domain.
#[derive(Debug)]
pub struct RdmaDevice {
    context: *mut sys::ibv_context,
    domain: *mut sys::ibv_pd,
    channel: *mut sys::ibv_comp_channel,
    name: String,
    port: u8,
    gid_index: u8,
    address: Address,
    limits: DeviceLimits,
    registrations: Vec<Option<Registration>>,
    cqs: Table<sys::ibv_cq>,
    srqs: Table<sys::ibv_srq>,
    qps: Table<sys::ibv_qp>,
    chains: Chains,
}

/// A structure of the library for which all zero bytes are a valid value.
///
/// # Safety
///
/// Every field is a number, a nullable pointer, or a union or structure of such.
unsafe trait Plain: Copy {
    fn zeroed() -> Self {
        // SAFETY: the trait says that all zero bytes are a value.
        unsafe { std::mem::zeroed() }
    }
}

macro_rules! plain {
    ($($name:ident),*) => { $(
        // SAFETY: numbers, nullable pointers, and unions and structures of them, by the library's header.
        unsafe impl Plain for sys::$name {}
    )* };
}

plain!(
    ibv_qp_attr,
    ibv_qp_init_attr,
    ibv_srq_init_attr,
    ibv_port_attr,
    ibv_device_attr,
    ibv_gid_entry,
    ibv_async_event,
    ibv_send_wr,
    ibv_recv_wr,
    ibv_sge,
    ibv_wc
);

fn refused(call: &'static str, errno: i32) -> DeviceError {
    DeviceError { call, errno }
}

/// For calls that leave the error number aside.
fn last_refused(call: &'static str) -> DeviceError {
    let errno = std::io::Error::last_os_error().raw_os_error();
    refused(call, errno.unwrap_or(libc::EIO))
}

/// For calls that return it.
fn check(call: &'static str, status: i32) -> Result<(), DeviceError> {
    match status {
        0 => Ok(()),
        -1 => Err(last_refused(call)),
        errno => Err(refused(call, errno.abs())),
    }
}

fn made<T>(call: &'static str, object: *mut T) -> Result<*mut T, DeviceError> {
    if object.is_null() {
        Err(last_refused(call))
    } else {
        Ok(object)
    }
}

impl RdmaDevice {
    /// Name of the device, e.g. `mlx5_0` or `rxe0`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn modify(
        &mut self,
        qp: QpId,
        call: &'static str,
        mut attr: sys::ibv_qp_attr,
        mask: sys::ibv_qp_attr_mask,
    ) -> Result<(), DeviceError> {
        let qp = self.qps.get(qp.0, call)?;
        let mask = i32::try_from(mask).map_err(|_| refused(call, libc::EINVAL))?;
        // SAFETY: the queue pair is alive, and the library reads the attributes during the call only.
        check(call, unsafe { sys::ibv_modify_qp(qp, &raw mut attr, mask) })
    }
}

impl VerbsApi for RdmaDevice {
    fn limits(&self) -> DeviceLimits {
        self.limits
    }

    fn address(&self) -> Address {
        self.address
    }

    fn register(&mut self, arena: &Arc<Arena>) -> Result<MrId, DeviceError> {
        let access = sys::IBV_ACCESS_LOCAL_WRITE;
        // SAFETY: the range is the arena's own allocation, which the registration keeps alive.
        let registration =
            unsafe { Registration::new(self.domain, arena, arena.base(), arena.bytes(), access)? };
        Ok(MrId(objects::put(&mut self.registrations, registration)))
    }

    unsafe fn expose(
        &mut self,
        arena: &Arc<Arena>,
        slot: u32,
        offset: u32,
        len: u32,
    ) -> Result<Permit, DeviceError> {
        let (offset, len) = (offset as usize, len as usize);
        let inside = offset
            .checked_add(len)
            .is_some_and(|end| end <= arena.slot_bytes());
        if !inside || len == 0 {
            return Err(refused("ibv_reg_mr", libc::EINVAL));
        }
        // SAFETY: the offset is inside the slot, by the check above.
        let start = unsafe { arena.slot(slot).add(offset) };
        let access = sys::IBV_ACCESS_LOCAL_WRITE | sys::IBV_ACCESS_REMOTE_WRITE;
        // SAFETY: the range is inside the arena, which the registration keeps alive; nobody borrows it, by the caller's
        // promise.
        let registration = unsafe { Registration::new(self.domain, arena, start, len, access)? };
        let rkey = registration.rkey();
        Ok(Permit {
            mr: MrId(objects::put(&mut self.registrations, registration)),
            rkey,
            address: start.addr() as u64,
        })
    }

    fn deregister(&mut self, mr: MrId) -> Result<(), DeviceError> {
        let call = "ibv_dereg_mr";
        let place = self.registrations.get_mut(mr.0 as usize);
        let place = place.ok_or_else(|| refused(call, libc::EINVAL))?;
        let registration = place.take().ok_or_else(|| refused(call, libc::EINVAL))?;
        match registration.end() {
            Ok(()) => Ok(()),
            Err((registration, error)) => {
                *place = Some(registration);
                Err(error)
            }
        }
    }

    fn create_cq(&mut self, depth: u32) -> Result<CqId, DeviceError> {
        let call = "ibv_create_cq";
        let depth = i32::try_from(depth).map_err(|_| refused(call, libc::EINVAL))?;
        // SAFETY: context and channel are alive.
        let cq =
            unsafe { sys::ibv_create_cq(self.context, depth, ptr::null_mut(), self.channel, 0) };
        Ok(CqId(self.cqs.put(made(call, cq)?)))
    }

    fn destroy_cq(&mut self, cq: CqId) -> Result<(), DeviceError> {
        // SAFETY: the table holds the only pointer, and forgets it with success; every event was acknowledged when taken.
        self.cqs.remove(cq.0, "ibv_destroy_cq", |cq| unsafe {
            sys::ibv_destroy_cq(cq)
        })
    }

    fn create_srq(&mut self, depth: u32) -> Result<SrqId, DeviceError> {
        let mut attr = sys::ibv_srq_init_attr::zeroed();
        (attr.attr.max_wr, attr.attr.max_sge) = (depth, 1);
        // SAFETY: the domain is alive, and the library reads and writes the attributes during the call only.
        let srq = unsafe { sys::ibv_create_srq(self.domain, &raw mut attr) };
        Ok(SrqId(self.srqs.put(made("ibv_create_srq", srq)?)))
    }

    fn destroy_srq(&mut self, srq: SrqId) -> Result<(), DeviceError> {
        // SAFETY: the table holds the only pointer, and forgets it with success.
        self.srqs.remove(srq.0, "ibv_destroy_srq", |srq| unsafe {
            sys::ibv_destroy_srq(srq)
        })
    }

    fn create_qp(&mut self, options: &QpOptions) -> Result<QpId, DeviceError> {
        let call = "ibv_create_qp";
        let mut attr = sys::ibv_qp_init_attr::zeroed();
        attr.send_cq = self.cqs.get(options.send_cq.0, call)?;
        attr.recv_cq = self.cqs.get(options.recv_cq.0, call)?;
        attr.srq = self.srqs.get(options.srq.0, call)?;
        attr.qp_type = sys::IBV_QPT_RC;
        attr.cap.max_send_wr = options.send_depth;
        attr.cap.max_send_sge = 1;
        attr.cap.max_inline_data = options.inline_bytes;
        // SAFETY: domain, queues and attributes are alive during the call.
        let qp = unsafe { sys::ibv_create_qp(self.domain, &raw mut attr) };
        Ok(QpId(self.qps.put(made(call, qp)?)))
    }

    fn destroy_qp(&mut self, qp: QpId) -> Result<(), DeviceError> {
        // SAFETY: the table holds the only pointer, and forgets it with success; every event was acknowledged when taken.
        self.qps.remove(qp.0, "ibv_destroy_qp", |qp| unsafe {
            sys::ibv_destroy_qp(qp)
        })
    }

    fn qp_num(&self, qp: QpId) -> u32 {
        let qp = self.qps.get(qp.0, "").expect("a queue pair that exists");
        // SAFETY: the queue pair is alive; the field does not change.
        unsafe { (*qp).qp_num }
    }

    fn reset(&mut self, qp: QpId) -> Result<(), DeviceError> {
        let mut attr = sys::ibv_qp_attr::zeroed();
        attr.qp_state = sys::IBV_QPS_RESET;
        self.modify(qp, "ibv_modify_qp to RESET", attr, sys::IBV_QP_STATE)
    }

    fn initialise(&mut self, qp: QpId) -> Result<(), DeviceError> {
        let mut attr = sys::ibv_qp_attr::zeroed();
        attr.qp_state = sys::IBV_QPS_INIT;
        attr.port_num = self.port;
        attr.qp_access_flags = sys::IBV_ACCESS_REMOTE_WRITE;
        let mask = sys::IBV_QP_STATE
            | sys::IBV_QP_PKEY_INDEX
            | sys::IBV_QP_PORT
            | sys::IBV_QP_ACCESS_FLAGS;
        self.modify(qp, "ibv_modify_qp to INIT", attr, mask)
    }

    fn ready_to_receive(&mut self, qp: QpId, remote: &Remote) -> Result<(), DeviceError> {
        let mut attr = sys::ibv_qp_attr::zeroed();
        attr.qp_state = sys::IBV_QPS_RTR;
        attr.path_mtu = open::mtu_code(remote.address.mtu_bytes);
        attr.dest_qp_num = remote.qp_num;
        attr.rq_psn = remote.psn;
        attr.min_rnr_timer = remote.rnr_timer;
        attr.ah_attr.is_global = 1;
        attr.ah_attr.grh.dgid.raw = remote.address.gid;
        attr.ah_attr.grh.sgid_index = self.gid_index;
        attr.ah_attr.grh.hop_limit = HOP_LIMIT;
        attr.ah_attr.dlid = remote.address.lid;
        attr.ah_attr.port_num = self.port;
        let mask = sys::IBV_QP_STATE
            | sys::IBV_QP_AV
            | sys::IBV_QP_PATH_MTU
            | sys::IBV_QP_DEST_QPN
            | sys::IBV_QP_RQ_PSN
            | sys::IBV_QP_MAX_DEST_RD_ATOMIC
            | sys::IBV_QP_MIN_RNR_TIMER;
        self.modify(qp, "ibv_modify_qp to RTR", attr, mask)
    }

    fn ready_to_send(&mut self, qp: QpId, psn: u32, remote: &Remote) -> Result<(), DeviceError> {
        let mut attr = sys::ibv_qp_attr::zeroed();
        attr.qp_state = sys::IBV_QPS_RTS;
        attr.sq_psn = psn;
        attr.timeout = remote.ack_timeout_log;
        attr.retry_cnt = remote.retries;
        attr.rnr_retry = remote.rnr_retries;
        let mask = sys::IBV_QP_STATE
            | sys::IBV_QP_SQ_PSN
            | sys::IBV_QP_TIMEOUT
            | sys::IBV_QP_RETRY_CNT
            | sys::IBV_QP_RNR_RETRY
            | sys::IBV_QP_MAX_QP_RD_ATOMIC;
        self.modify(qp, "ibv_modify_qp to RTS", attr, mask)
    }

    fn fail(&mut self, qp: QpId) -> Result<(), DeviceError> {
        let mut attr = sys::ibv_qp_attr::zeroed();
        attr.qp_state = sys::IBV_QPS_ERR;
        self.modify(qp, "ibv_modify_qp to ERR", attr, sys::IBV_QP_STATE)
    }

    unsafe fn post_recv(&mut self, srq: SrqId, works: &[RecvWork]) -> Result<(), PostError> {
        let srq = self.srqs.get(srq.0, "ibv_post_srq_recv");
        let srq = srq.map_err(|error| PostError {
            posted: 0,
            errno: error.errno,
        })?;
        // SAFETY: the queue is alive; the rest is the caller's promise.
        unsafe { self.chains.post_recv(srq, works, &self.registrations) }
    }

    unsafe fn post_send(&mut self, qp: QpId, works: &[SendWork]) -> Result<(), PostError> {
        let qp = self.qps.get(qp.0, "ibv_post_send");
        let qp = qp.map_err(|error| PostError {
            posted: 0,
            errno: error.errno,
        })?;
        // SAFETY: the queue pair is alive; the rest is the caller's promise.
        unsafe { self.chains.post_send(qp, works, &self.registrations) }
    }

    fn poll_cq(&mut self, cq: CqId, out: &mut [Completion]) -> Result<usize, DeviceError> {
        let cq = self.cqs.get(cq.0, "ibv_poll_cq")?;
        // SAFETY: the queue is alive.
        unsafe { self.chains.poll_cq(cq, out) }
    }

    fn arm_cq(&mut self, cq: CqId) -> Result<(), DeviceError> {
        let call = "ibv_req_notify_cq";
        let cq = self.cqs.get(cq.0, call)?;
        // SAFETY: the queue is alive.
        check(call, unsafe { sys::ibv_req_notify_cq(cq, 0) })
    }

    fn quiet(&mut self) {
        let (mut cq, mut own) = (ptr::null_mut(), ptr::null_mut());
        loop {
            // SAFETY: the channel is alive and does not block; the results are written to variables that live on.
            let status = unsafe { sys::ibv_get_cq_event(self.channel, &raw mut cq, &raw mut own) };
            if status != 0 {
                return;
            }
            // SAFETY: the library has just named the queue, which is not destroyed before its events are acknowledged.
            unsafe { sys::ibv_ack_cq_events(cq, 1) };
        }
    }

    fn wake_fd(&self) -> Option<RawFd> {
        // SAFETY: the channel is alive; the field does not change.
        Some(unsafe { (*self.channel).fd })
    }

    fn poll_async(&mut self) -> Option<AsyncEvent> {
        let mut event = sys::ibv_async_event::zeroed();
        // SAFETY: the context is alive and its descriptor does not block; the event is written to a variable that lives on.
        let status = unsafe { sys::ibv_get_async_event(self.context, &raw mut event) };
        if status != 0 {
            return None;
        }
        let read = open::read_event(&event);
        // SAFETY: the event was just taken, and is acknowledged once.
        unsafe { sys::ibv_ack_async_event(&raw mut event) };
        Some(read)
    }
}

/// Routers that a packet may pass, as for any IP packet.
const HOP_LIMIT: u8 = 64;

impl Drop for RdmaDevice {
    fn drop(&mut self) {
        // A refusal leaves the object to the end of the process; the arenas are kept with it.
        for qp in self.qps.drain() {
            // SAFETY: the table held the only pointer.
            unsafe { sys::ibv_destroy_qp(qp) };
        }
        for srq in self.srqs.drain() {
            // SAFETY: as above, and no queue pair uses it any more.
            unsafe { sys::ibv_destroy_srq(srq) };
        }
        for cq in self.cqs.drain() {
            // SAFETY: as above.
            unsafe { sys::ibv_destroy_cq(cq) };
        }
        for registration in self.registrations.drain(..).flatten() {
            if let Err((registration, _)) = registration.end() {
                std::mem::forget(registration);
            }
        }
        // SAFETY: nothing is left on the channel.
        unsafe { sys::ibv_destroy_comp_channel(self.channel) };
        // SAFETY: nothing is left in the domain.
        unsafe { sys::ibv_dealloc_pd(self.domain) };
        // SAFETY: nothing of the context is left.
        unsafe { sys::ibv_close_device(self.context) };
    }
}
