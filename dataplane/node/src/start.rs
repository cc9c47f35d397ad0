//! How a place comes to life on its host: it registers over its connection to the controller and starts with the
//! incarnation that it is given.

use ionian_core::Outbox;
use ionian_types::{ConnId, Inc, Time};
use ionian_wire::frame::Message;

use crate::host::Tenant;
use crate::role::{DirectoryRole, Machine, Place};

/// Sends the registration of a place that waits, once its store is ready.
pub(crate) fn register(tenant: &mut Tenant, out: &mut Outbox) {
    let Machine::Waiting(waiting) = &mut tenant.machine else {
        return;
    };
    let Some(conn) = tenant.controller.filter(|_| !waiting.asked) else {
        return;
    };
    let address = waiting.address.clone();
    if out
        .send(conn, &waiting.register(), address.as_bytes())
        .is_ok()
    {
        waiting.asked = true;
    }
}

/// The connection to the controller is gone: a place that waits asks again over the next one, under a new number, since an
/// answer to the old question may name a life that is past.
pub(crate) fn forget_request(tenant: &mut Tenant) {
    if let Machine::Waiting(waiting) = &mut tenant.machine {
        waiting.asked = false;
        waiting.request += 1;
        waiting.hello = None;
    }
}

/// Hands a message to the machine of a place, or to its start.
#[inline]
pub(crate) fn deliver(
    tenant: &mut Tenant,
    now: Time,
    conn: ConnId,
    message: &Message<'_>,
    out: &mut Outbox,
) {
    if tenant.controller == Some(conn) {
        from_controller(tenant, now, conn, message, out);
    } else {
        tenant.machine.handle(now, conn, message, out);
    }
}

#[cold]
fn from_controller(
    tenant: &mut Tenant,
    now: Time,
    conn: ConnId,
    message: &Message<'_>,
    out: &mut Outbox,
) {
    match (&mut tenant.machine, message) {
        (Machine::Waiting(_), _) => on_waiting(tenant, now, conn, message, out),
        // A later life has taken the place.
        (_, Message::Registered(answer, reason)) if answer.inc == Inc::ZERO => {
            tenant.machine = Machine::Refused(String::from_utf8_lossy(reason).into_owned());
        }
        (Machine::Root(_) | Machine::Leaf(_), _) => tenant.machine.handle(now, conn, message, out),
        _ => {}
    }
}

/// Handles a message to a place that has not started.
fn on_waiting(
    tenant: &mut Tenant,
    now: Time,
    conn: ConnId,
    message: &Message<'_>,
    out: &mut Outbox,
) {
    let Machine::Waiting(waiting) = &mut tenant.machine else {
        return;
    };
    match message {
        Message::Hello(hello, _) => waiting.hello = Some(*hello),
        Message::Registered(answer, reason) if answer.request == waiting.request => {
            if answer.inc == Inc::ZERO {
                tenant.machine = Machine::Refused(String::from_utf8_lossy(reason).into_owned());
                return;
            }
            let mut machine = waiting.start(answer.cluster, answer.inc, now);
            for opened in waiting.opened.drain(..) {
                machine.opened(opened, out);
            }
            // The root and the leaf talk to the controller themselves; for a replica the host keeps the connection.
            if !matches!(waiting.place, Place::Replica(..)) {
                machine.opened(conn, out);
                if let Some(hello) = waiting.hello {
                    machine.handle(now, conn, &Message::Hello(hello, &[]), out);
                }
            }
            tenant.machine = machine;
        }
        _ => {}
    }
}

/// The file that holds the directory's state.
pub(crate) const DIRECTORY_FILE: &str = "controller.state";

/// Makes a change of the directory durable: at once where it lives in memory only.
pub(crate) fn persist(role: &mut DirectoryRole) {
    while let Some(snapshot) = role.machine.take_snapshot() {
        let kept = match &role.file {
            None => Ok(()),
            Some(dir) => dir.write_small(DIRECTORY_FILE, &snapshot.bytes),
        };
        match kept {
            Ok(()) => role.machine.persisted(snapshot.version),
            Err(_) => {
                role.machine.not_persisted();
                return;
            }
        }
    }
}
