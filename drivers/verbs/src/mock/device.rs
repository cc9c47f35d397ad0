//! The calls of one device of a net.

use std::os::fd::RawFd;
use std::sync::Arc;

use ionian_driver_api::dma::Arena;

use super::MockDevice;
use super::net::{Cq, Device, Mr, Net, Qp, QpState, Srq};
use crate::api::{
    Address, AsyncEvent, Completion, CqId, DeviceError, DeviceLimits, MrId, Permit, PostError,
    QpId, QpOptions, RecvWork, Remote, SendWork, SrqId, VerbsApi,
};

impl MockDevice {
    fn with<T>(&self, act: impl FnOnce(&mut Device, &mut u32) -> T) -> T {
        let net = &mut *self.net.borrow_mut();
        act(&mut net.devices[self.index], &mut net.next_number)
    }

    fn step_qp(
        &mut self,
        qp: QpId,
        call: &'static str,
        act: impl FnOnce(&mut Qp) -> bool,
    ) -> Result<(), DeviceError> {
        let moved = self.with(|device, _| {
            let qp = device.qps.get_mut(qp.0 as usize).and_then(Option::as_mut);
            qp.is_some_and(act)
        });
        refuse_unless(moved, call)
    }
}

fn refuse_unless(ok: bool, call: &'static str) -> Result<(), DeviceError> {
    if ok {
        Ok(())
    } else {
        Err(DeviceError {
            call,
            errno: libc::EINVAL,
        })
    }
}

/// Puts an object into a table and returns its number.
fn put<T>(table: &mut Vec<Option<T>>, object: T) -> u32 {
    let number = table.iter().position(Option::is_none).unwrap_or_else(|| {
        table.push(None);
        table.len() - 1
    });
    table[number] = Some(object);
    u32::try_from(number).expect("tables are small")
}

fn remove<T>(table: &mut [Option<T>], number: u32) -> bool {
    table
        .get_mut(number as usize)
        .and_then(Option::take)
        .is_some()
}

impl VerbsApi for MockDevice {
    fn limits(&self) -> DeviceLimits {
        self.net.borrow().limits.device
    }

    fn address(&self) -> Address {
        Net::address(self.index)
    }

    fn register(&mut self, arena: &Arc<Arena>) -> Result<MrId, DeviceError> {
        Ok(self.with(|device, _| {
            let mr = Mr {
                arena: Arc::clone(arena),
                start: arena.base(),
                len: arena.bytes(),
                rkey: None,
            };
            MrId(put(&mut device.mrs, mr))
        }))
    }

    unsafe fn expose(
        &mut self,
        arena: &Arc<Arena>,
        slot: u32,
        offset: u32,
        len: u32,
    ) -> Result<Permit, DeviceError> {
        let (first, len) = (offset as usize, len as usize);
        refuse_unless(len > 0 && first + len <= arena.slot_bytes(), "ibv_reg_mr")?;
        // SAFETY: the offset is inside the slot, by the check above.
        let start = unsafe { arena.slot(slot).add(first) };
        Ok(self.with(|device, next_number| {
            *next_number += 1;
            let rkey = *next_number;
            let mr = Mr {
                arena: Arc::clone(arena),
                start,
                len,
                rkey: Some(rkey),
            };
            Permit {
                mr: MrId(put(&mut device.mrs, mr)),
                rkey,
                address: start.addr() as u64,
            }
        }))
    }

    fn deregister(&mut self, mr: MrId) -> Result<(), DeviceError> {
        let ended = self.with(|device, _| !device.stuck && remove(&mut device.mrs, mr.0));
        refuse_unless(ended, "ibv_dereg_mr")
    }

    fn create_cq(&mut self, depth: u32) -> Result<CqId, DeviceError> {
        Ok(CqId(
            self.with(|device, _| put(&mut device.cqs, Cq::new(depth))),
        ))
    }

    fn destroy_cq(&mut self, cq: CqId) -> Result<(), DeviceError> {
        let unused = self.with(|device, _| {
            let uses = |qp: &Qp| qp.options.send_cq == cq || qp.options.recv_cq == cq;
            !device.qps.iter().flatten().any(uses) && remove(&mut device.cqs, cq.0)
        });
        refuse_unless(unused, "ibv_destroy_cq")
    }

    fn create_srq(&mut self, depth: u32) -> Result<SrqId, DeviceError> {
        let srq = Srq {
            posted: std::collections::VecDeque::with_capacity(depth as usize),
            depth: depth as usize,
        };
        Ok(SrqId(self.with(|device, _| put(&mut device.srqs, srq))))
    }

    fn destroy_srq(&mut self, srq: SrqId) -> Result<(), DeviceError> {
        let unused = self.with(|device, _| {
            !device.qps.iter().flatten().any(|qp| qp.options.srq == srq)
                && remove(&mut device.srqs, srq.0)
        });
        refuse_unless(unused, "ibv_destroy_srq")
    }

    fn create_qp(&mut self, options: &QpOptions) -> Result<QpId, DeviceError> {
        let inline_bytes_max = self.net.borrow().limits.inline_bytes_max;
        refuse_unless(options.inline_bytes <= inline_bytes_max, "ibv_create_qp")?;
        Ok(self.with(|device, next_number| {
            *next_number += 1;
            QpId(put(&mut device.qps, Qp::new(*next_number, *options)))
        }))
    }

    fn destroy_qp(&mut self, qp: QpId) -> Result<(), DeviceError> {
        self.reset(qp)?;
        let gone = self.with(|device, _| remove(&mut device.qps, qp.0));
        refuse_unless(gone, "ibv_destroy_qp")
    }

    fn qp_num(&self, qp: QpId) -> u32 {
        self.with(|device, _| {
            let qp = device.qps[qp.0 as usize].as_ref();
            qp.expect("a queue pair that exists").num
        })
    }

    fn reset(&mut self, qp: QpId) -> Result<(), DeviceError> {
        let mut num = 0;
        self.step_qp(qp, "ibv_modify_qp to RESET", |qp| {
            qp.forget();
            num = qp.num;
            true
        })?;
        self.net.borrow_mut().purge(self.index, num);
        Ok(())
    }

    fn initialise(&mut self, qp: QpId) -> Result<(), DeviceError> {
        self.step_qp(qp, "ibv_modify_qp to INIT", |qp| {
            let from = std::mem::replace(&mut qp.state, QpState::Init);
            from == QpState::Reset
        })
    }

    fn ready_to_receive(&mut self, qp: QpId, remote: &Remote) -> Result<(), DeviceError> {
        let remote = *remote;
        self.step_qp(qp, "ibv_modify_qp to RTR", |qp| {
            let from = std::mem::replace(&mut qp.state, QpState::ReadyToReceive);
            qp.remote = Some(remote);
            from == QpState::Init
        })
    }

    fn ready_to_send(&mut self, qp: QpId, psn: u32, _remote: &Remote) -> Result<(), DeviceError> {
        self.step_qp(qp, "ibv_modify_qp to RTS", |qp| {
            let from = std::mem::replace(&mut qp.state, QpState::ReadyToSend);
            qp.psn = psn;
            from == QpState::ReadyToReceive
        })
    }

    fn fail(&mut self, qp: QpId) -> Result<(), DeviceError> {
        self.step_qp(qp, "ibv_modify_qp to ERR", |qp| qp.state != QpState::Reset)?;
        self.net.borrow_mut().fail(self.index, qp.0 as usize);
        Ok(())
    }

    unsafe fn post_recv(&mut self, srq: SrqId, works: &[RecvWork]) -> Result<(), PostError> {
        self.with(|device, _| {
            let srq = device.srqs.get_mut(srq.0 as usize).and_then(Option::as_mut);
            let Some(srq) = srq else {
                return Err(PostError {
                    posted: 0,
                    errno: libc::EINVAL,
                });
            };
            for (posted, work) in works.iter().enumerate() {
                if srq.posted.len() == srq.depth {
                    return Err(PostError {
                        posted,
                        errno: libc::ENOMEM,
                    });
                }
                srq.posted.push_back(*work);
            }
            Ok(())
        })
    }

    unsafe fn post_send(&mut self, qp: QpId, works: &[SendWork]) -> Result<(), PostError> {
        let mut net = self.net.borrow_mut();
        for (posted, work) in works.iter().enumerate() {
            if !net.take_in(self.index, qp.0 as usize, work) {
                return Err(PostError {
                    posted,
                    errno: libc::ENOMEM,
                });
            }
        }
        Ok(())
    }

    fn poll_cq(&mut self, cq: CqId, out: &mut [Completion]) -> Result<usize, DeviceError> {
        let polled = self.net.borrow_mut().poll(self.index, cq.0 as usize, out);
        polled.ok_or(DeviceError {
            call: "ibv_poll_cq",
            errno: libc::EIO,
        })
    }

    fn arm_cq(&mut self, _cq: CqId) -> Result<(), DeviceError> {
        Ok(())
    }

    fn quiet(&mut self) {}

    fn wake_fd(&self) -> Option<RawFd> {
        None
    }

    fn poll_async(&mut self) -> Option<AsyncEvent> {
        self.with(|device, _| device.events.pop_front())
    }
}
