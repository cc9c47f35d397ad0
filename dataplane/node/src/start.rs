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
    let Some(conn) = tenant.controller else {
        waiting.asked = false;
        return;
    };
    if waiting.asked {
        return;
    }
    let address = waiting.address.clone();
    if out
        .send(conn, &waiting.register(), address.as_bytes())
        .is_ok()
    {
        waiting.asked = true;
    }
}

/// Handles a message to a place that has not started.
pub(crate) fn on_waiting(
    tenant: &mut Tenant,
    now: Time,
    conn: ConnId,
    message: &Message<'_>,
    out: &mut Outbox,
) {
    let Machine::Waiting(waiting) = &mut tenant.machine else {
        return;
    };
    if tenant.controller != Some(conn) {
        return;
    }
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
