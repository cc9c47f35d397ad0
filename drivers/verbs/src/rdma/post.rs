//! Work requests as the library wants them, and its completions.
//!
//! A chain is built in arrays that are made once; nothing is allocated when one is posted.

use std::ptr;

use ionian_verbs_sys as sys;

use super::objects::Registration;
use super::{Plain, refused};
use crate::api::{
    Completion, Data, DeviceError, Done, DoneKind, MrId, PostError, RecvWork, RemoteBytes, SendOp,
    SendWork, Status,
};

/// Work requests of one chain; longer ones are posted as several.
const CHAIN: usize = 256;
/// Completions taken at once.
const COMPLETIONS: usize = 64;

/// Arrays that chains are built in.
pub(super) struct Chains {
    sends: Box<[sys::ibv_send_wr]>,
    recvs: Box<[sys::ibv_recv_wr]>,
    segments: Box<[sys::ibv_sge]>,
    completions: Box<[sys::ibv_wc]>,
}

impl std::fmt::Debug for Chains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chains").finish_non_exhaustive()
    }
}

impl Chains {
    pub(super) fn new() -> Self {
        Self {
            sends: vec![sys::ibv_send_wr::zeroed(); CHAIN].into_boxed_slice(),
            recvs: vec![sys::ibv_recv_wr::zeroed(); CHAIN].into_boxed_slice(),
            segments: vec![sys::ibv_sge::zeroed(); CHAIN].into_boxed_slice(),
            completions: vec![sys::ibv_wc::zeroed(); COMPLETIONS].into_boxed_slice(),
        }
    }

    /// Posts sends, a chain per doorbell.
    ///
    /// # Safety
    ///
    /// The queue pair is alive, and the caller keeps the promise of [`VerbsApi::post_send`](crate::VerbsApi::post_send).
    pub(super) unsafe fn post_send(
        &mut self,
        qp: *mut sys::ibv_qp,
        works: &[SendWork],
        registrations: &[Option<Registration>],
    ) -> Result<(), PostError> {
        let mut before = 0;
        for works in works.chunks(CHAIN) {
            let segments = self.segments.as_mut_ptr();
            let sends = self.sends.as_mut_ptr();
            for (at, work) in works.iter().enumerate() {
                let Some(segment) = segment(&work.data, registrations) else {
                    return Err(PostError {
                        posted: before,
                        errno: libc::EINVAL,
                    });
                };
                // SAFETY: chunks are no longer than the arrays.
                let own_segment = unsafe { segments.add(at) };
                // SAFETY: inside the array, which nothing else borrows.
                unsafe { own_segment.write(segment) };
                let mut request = request(work);
                if segment.length > 0 {
                    (request.sg_list, request.num_sge) = (own_segment, 1);
                }
                if at + 1 < works.len() {
                    // SAFETY: chunks are no longer than the arrays.
                    request.next = unsafe { sends.add(at + 1) };
                }
                // SAFETY: chunks are no longer than the arrays.
                let own = unsafe { sends.add(at) };
                // SAFETY: inside the array, which nothing else borrows.
                unsafe { own.write(request) };
            }
            let mut bad = ptr::null_mut();
            // SAFETY: the queue pair is alive; the chain ends in null, and each request has its segment; the library reads
            // both, and inline bytes, during the call only. That the slots stay untouched is the caller's promise.
            let status = unsafe { sys::ibv_post_send(qp, sends, &raw mut bad) };
            if status != 0 {
                let at = position(sends, bad, works.len());
                return Err(PostError {
                    posted: before + at,
                    errno: status.abs(),
                });
            }
            before += works.len();
        }
        Ok(())
    }

    /// Posts receives.
    ///
    /// # Safety
    ///
    /// The queue is alive, and the caller keeps the promise of [`VerbsApi::post_recv`](crate::VerbsApi::post_recv).
    pub(super) unsafe fn post_recv(
        &mut self,
        srq: *mut sys::ibv_srq,
        works: &[RecvWork],
        registrations: &[Option<Registration>],
    ) -> Result<(), PostError> {
        let mut before = 0;
        for works in works.chunks(CHAIN) {
            let segments = self.segments.as_mut_ptr();
            let recvs = self.recvs.as_mut_ptr();
            for (at, work) in works.iter().enumerate() {
                let Some(segment) = slot(work.mr, work.slot, None, registrations) else {
                    return Err(PostError {
                        posted: before,
                        errno: libc::EINVAL,
                    });
                };
                // SAFETY: chunks are no longer than the arrays.
                let own_segment = unsafe { segments.add(at) };
                // SAFETY: inside the array, which nothing else borrows.
                unsafe { own_segment.write(segment) };
                let mut request = sys::ibv_recv_wr::zeroed();
                request.wr_id = work.wr_id;
                (request.sg_list, request.num_sge) = (own_segment, 1);
                if at + 1 < works.len() {
                    // SAFETY: chunks are no longer than the arrays.
                    request.next = unsafe { recvs.add(at + 1) };
                }
                // SAFETY: chunks are no longer than the arrays.
                let own = unsafe { recvs.add(at) };
                // SAFETY: inside the array, which nothing else borrows.
                unsafe { own.write(request) };
            }
            let mut bad = ptr::null_mut();
            // SAFETY: the queue is alive; the chain ends in null, and each request has its segment; the library reads both
            // during the call only. That the slots stay untouched is the caller's promise.
            let status = unsafe { sys::ibv_post_srq_recv(srq, recvs, &raw mut bad) };
            if status != 0 {
                let at = position(recvs, bad, works.len());
                return Err(PostError {
                    posted: before + at,
                    errno: status.abs(),
                });
            }
            before += works.len();
        }
        Ok(())
    }

    /// Takes completions.
    ///
    /// # Safety
    ///
    /// The queue is alive.
    pub(super) unsafe fn poll_cq(
        &mut self,
        cq: *mut sys::ibv_cq,
        out: &mut [Completion],
    ) -> Result<usize, DeviceError> {
        let most = out.len().min(self.completions.len());
        let most = i32::try_from(most).expect("the array is short");
        // SAFETY: the queue is alive, and the array has room for as many.
        let count = unsafe { sys::ibv_poll_cq(cq, most, self.completions.as_mut_ptr()) };
        let count = usize::try_from(count).map_err(|_| refused("ibv_poll_cq", libc::EIO))?;
        for (out, completion) in out.iter_mut().zip(&self.completions[..count]) {
            *out = read(completion);
        }
        Ok(count)
    }
}

/// How many of a chain came before the one that was refused.
fn position<T>(first: *mut T, bad: *mut T, len: usize) -> usize {
    let bytes = bad.addr().wrapping_sub(first.addr());
    let at = bytes / size_of::<T>();
    if bad.is_null() || at >= len { 0 } else { at }
}

/// The bytes of a send, `length` 0 for none. `None` for what is not registered.
fn segment(data: &Data, registrations: &[Option<Registration>]) -> Option<sys::ibv_sge> {
    match data {
        Data::None => Some(sys::ibv_sge::zeroed()),
        Data::Control { bytes, len } => {
            let mut segment = sys::ibv_sge::zeroed();
            segment.addr = bytes.as_ptr().expose_provenance() as u64;
            segment.length = u32::from(*len);
            Some(segment)
        }
        Data::Slot {
            mr,
            slot: index,
            len,
            ..
        } => slot(*mr, *index, Some(*len), registrations),
    }
}

/// The first `len` bytes of a slot, all of it without.
fn slot(
    mr: MrId,
    index: u32,
    len: Option<u32>,
    registrations: &[Option<Registration>],
) -> Option<sys::ibv_sge> {
    let registration = registrations.get(mr.0 as usize)?.as_ref()?;
    let slot_bytes = u32::try_from(registration.arena.slot_bytes()).ok()?;
    let length = len.unwrap_or(slot_bytes);
    let mut segment = sys::ibv_sge::zeroed();
    segment.addr = registration.arena.slot(index).expose_provenance() as u64;
    segment.length = length;
    segment.lkey = registration.lkey();
    (length <= slot_bytes).then_some(segment)
}

fn request(work: &SendWork) -> sys::ibv_send_wr {
    let mut request = sys::ibv_send_wr::zeroed();
    request.wr_id = work.wr_id;
    if work.signalled {
        request.send_flags |= sys::IBV_SEND_SIGNALED;
    }
    if work.is_inline() {
        request.send_flags |= sys::IBV_SEND_INLINE;
    }
    let mut aim = |remote: RemoteBytes| {
        request.wr.rdma = sys::ibv_send_wr__bindgen_ty_2__bindgen_ty_1 {
            remote_addr: remote.address,
            rkey: remote.rkey,
        };
    };
    // Immediate data travels in network order.
    match work.op {
        SendOp::Send { immediate } => {
            request.opcode = sys::IBV_WR_SEND_WITH_IMM;
            request.__bindgen_anon_1.imm_data = immediate.to_be();
        }
        SendOp::Write(remote) => {
            aim(remote);
            request.opcode = sys::IBV_WR_RDMA_WRITE;
        }
        SendOp::WriteWithImmediate { remote, immediate } => {
            aim(remote);
            request.opcode = sys::IBV_WR_RDMA_WRITE_WITH_IMM;
            request.__bindgen_anon_1.imm_data = immediate.to_be();
        }
    }
    request
}

/// Of a failure only number, status and queue pair are read: the library leaves the rest as it was.
fn read(completion: &sys::ibv_wc) -> Completion {
    let result = match completion.status {
        sys::IBV_WC_SUCCESS => {
            let kind = match completion.opcode {
                sys::IBV_WC_RECV => DoneKind::Received,
                sys::IBV_WC_RECV_RDMA_WITH_IMM => DoneKind::Written,
                _ => DoneKind::Sent,
            };
            let with = completion.wc_flags & sys::IBV_WC_WITH_IMM != 0;
            // SAFETY: both variants of the union are numbers of 32 bits.
            let immediate = unsafe { completion.__bindgen_anon_1.imm_data };
            Ok(Done {
                kind,
                bytes: completion.byte_len,
                immediate: with.then(|| u32::from_be(immediate)),
            })
        }
        sys::IBV_WC_WR_FLUSH_ERR => Err(Status::Flushed),
        sys::IBV_WC_RETRY_EXC_ERR => Err(Status::NoAnswer),
        sys::IBV_WC_RNR_RETRY_EXC_ERR => Err(Status::NoReceive),
        sys::IBV_WC_REM_ACCESS_ERR => Err(Status::RemoteAccess),
        other => Err(Status::Other(other)),
    };
    Completion {
        wr_id: completion.wr_id,
        qp_num: completion.qp_num,
        result,
    }
}
