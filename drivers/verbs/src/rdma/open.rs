//! Opening a device, and saying what is missing where that fails.

use std::ffi::CStr;
use std::path::Path;

use ionian_verbs_sys as sys;
use thiserror::Error;

use super::objects::Table;
use super::post::Chains;
use super::{Plain, RdmaDevice, check, last_refused, made};
use crate::api::{Address, AsyncEvent, DeviceError, DeviceLimits};

/// Which port of which device to open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceOptions {
    /// Name of the device, e.g. `mlx5_0`; `None` for the only one.
    pub device: Option<String>,
    /// Its port, from 1.
    pub port: u8,
    /// Index of the GID; `None` for the first of RoCE v2 with an IPv4 address, else the first of RoCE v2, else the first.
    pub gid_index: Option<u8>,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            device: None,
            port: 1,
            gid_index: None,
        }
    }
}

/// Why a device was not opened. Effect: none.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RdmaOpenError {
    /// The kernel knows no RDMA device.
    #[error(
        "this machine has no RDMA device: load its driver (`modprobe mlx5_ib`), or make a software one on a network \
         interface (`modprobe rdma_rxe && rdma link add rxe0 type rxe netdev eth0`)"
    )]
    NoDevice,
    /// The kernel has devices, and no way to them from user space.
    #[error(
        "the kernel's RDMA devices cannot be used from programs: `modprobe ib_uverbs` makes /dev/infiniband/uverbs0"
    )]
    NoUverbs,
    /// The kernel has devices, and the library has no provider for them.
    #[error(
        "libibverbs has no provider for this machine's RDMA devices ({devices}): \
         `apt-get install -y --no-install-recommends ibverbs-providers`"
    )]
    NoProvider {
        /// Names of the kernel's devices.
        devices: String,
    },
    /// There are several, and none was named.
    #[error("this machine has several RDMA devices ({devices}): name one in the NIC profile")]
    Several {
        /// Their names.
        devices: String,
    },
    /// There is none of this name.
    #[error(
        "there is no RDMA device {device}, but {devices}: name one of these in the NIC profile"
    )]
    NotFound {
        /// The name asked for.
        device: String,
        /// Names of those that there are.
        devices: String,
    },
    /// It could not be opened.
    #[error(
        "RDMA device {device} cannot be opened ({error}): the user needs read and write access to /dev/infiniband/uverbs*"
    )]
    Open {
        /// The device.
        device: String,
        /// The system's answer.
        error: DeviceError,
    },
    /// The port does not exist.
    #[error("RDMA device {device} has no port {port}, but 1 to {ports}")]
    NoPort {
        /// The device.
        device: String,
        /// The port asked for.
        port: u8,
        /// Ports that it has.
        ports: u8,
    },
    /// The port is not active.
    #[error(
        "port {port} of RDMA device {device} is not active: bring its network interface up \
         (`rdma link show {device}/{port}` names it, `ip link set NAME up`), or plug the cable in"
    )]
    PortDown {
        /// The device.
        device: String,
        /// The port.
        port: u8,
    },
    /// The port has no GID that can be used.
    #[error(
        "port {port} of RDMA device {device} has no usable GID{wanted}: give its network interface an address \
         (`ip addr add ADDRESS/24 dev NAME`), and see `ibv_devinfo -v -d {device}`"
    )]
    NoGid {
        /// The device.
        device: String,
        /// The port.
        port: u8,
        /// The index asked for, as a part of the sentence.
        wanted: String,
    },
    /// The device refused something else.
    #[error("RDMA device {device}: {error}")]
    Device {
        /// The device.
        device: String,
        /// What it refused.
        error: DeviceError,
    },
}

/// The library's list of devices, freed with it. Devices outlive the list once they are opened.
struct List {
    devices: *mut *mut sys::ibv_device,
    count: usize,
}

impl List {
    fn get() -> Self {
        let mut count = 0;
        // SAFETY: the count is written to a variable that lives on.
        let devices = unsafe { sys::ibv_get_device_list(&raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        Self {
            devices,
            count: if devices.is_null() { 0 } else { count },
        }
    }

    fn device(&self, at: usize) -> *mut sys::ibv_device {
        assert!(at < self.count, "device {at} of {}", self.count);
        // SAFETY: the place is inside the list, by the assertion above.
        let place = unsafe { self.devices.add(at) };
        // SAFETY: as above.
        unsafe { *place }
    }

    fn name(&self, at: usize) -> String {
        // SAFETY: the device is in the list, which is alive.
        let name = unsafe { sys::ibv_get_device_name(self.device(at)) };
        // SAFETY: the library's name ends in a zero byte and lives as long as the list.
        unsafe { CStr::from_ptr(name) }
            .to_string_lossy()
            .into_owned()
    }
}

impl Drop for List {
    fn drop(&mut self) {
        if !self.devices.is_null() {
            // SAFETY: the list came from the library and is freed once.
            unsafe { sys::ibv_free_device_list(self.devices) };
        }
    }
}

impl RdmaDevice {
    /// Opens a device by its options.
    ///
    /// # Errors
    ///
    /// [`RdmaOpenError`] says what is missing and what brings it. Effect: none.
    pub fn open(options: &DeviceOptions) -> Result<Self, RdmaOpenError> {
        // Registered memory must not be copied on write in a child; kernels since 5.12 see to it without this call.
        // SAFETY: the call takes nothing, and comes before any registration of this device.
        unsafe { sys::ibv_fork_init() };
        let list = List::get();
        let names: Vec<String> = (0..list.count).map(|at| list.name(at)).collect();
        let at = choose(&names, options.device.as_deref())?;
        let name = names[at].clone();
        // SAFETY: the device is in the list, which is alive.
        let context = unsafe { sys::ibv_open_device(list.device(at)) };
        if context.is_null() {
            return Err(RdmaOpenError::Open {
                device: name,
                error: last_refused("ibv_open_device"),
            });
        }
        Self::on(context, name.clone(), options).inspect_err(|_| {
            // SAFETY: nothing of the context is left: what was made was given back before the error.
            unsafe { sys::ibv_close_device(context) };
        })
    }

    fn on(
        context: *mut sys::ibv_context,
        name: String,
        options: &DeviceOptions,
    ) -> Result<Self, RdmaOpenError> {
        let port = options.port;
        let refuse = |error| RdmaOpenError::Device {
            device: name.clone(),
            error,
        };
        let mut device = sys::ibv_device_attr::zeroed();
        // SAFETY: the context is alive, and the attributes are written to a variable that lives on.
        let status = unsafe { sys::ibv_query_device(context, &raw mut device) };
        check("ibv_query_device", status).map_err(refuse)?;
        if port == 0 || port > device.phys_port_cnt {
            return Err(RdmaOpenError::NoPort {
                device: name,
                port,
                ports: device.phys_port_cnt,
            });
        }
        let mut attr = sys::ibv_port_attr::zeroed();
        // SAFETY: as above.
        let status = unsafe { sys::___ibv_query_port(context, port, &raw mut attr) };
        check("ibv_query_port", status).map_err(refuse)?;
        if attr.state != sys::IBV_PORT_ACTIVE {
            return Err(RdmaOpenError::PortDown { device: name, port });
        }
        let (gid_index, gid) = choose_gid(context, port, attr.gid_tbl_len, options.gid_index)
            .ok_or_else(|| RdmaOpenError::NoGid {
                device: name.clone(),
                port,
                wanted: options
                    .gid_index
                    .map_or_else(String::new, |index| format!(" at index {index}")),
            })?;
        // SAFETY: the context is alive.
        let domain = made("ibv_alloc_pd", unsafe { sys::ibv_alloc_pd(context) }).map_err(refuse)?;
        // SAFETY: the context is alive.
        let channel = unsafe { sys::ibv_create_comp_channel(context) };
        let channel = made("ibv_create_comp_channel", channel).map_err(|error| {
            // SAFETY: the domain was just made, and nothing is in it.
            unsafe { sys::ibv_dealloc_pd(domain) };
            refuse(error)
        })?;
        // SAFETY: both objects are alive; the fields do not change.
        let channel_fd = unsafe { (*channel).fd };
        // SAFETY: as above.
        let async_fd = unsafe { (*context).async_fd };
        for fd in [channel_fd, async_fd] {
            // SAFETY: the descriptor is the library's and open; the call changes a flag of it.
            unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_NONBLOCK) };
        }
        let most = |value: i32| u32::try_from(value).unwrap_or(0);
        Ok(Self {
            context,
            domain,
            channel,
            port,
            gid_index,
            address: Address {
                gid,
                lid: attr.lid,
                mtu_bytes: mtu_bytes(attr.active_mtu),
            },
            limits: DeviceLimits {
                send_depth_max: most(device.max_qp_wr),
                recv_depth_max: most(device.max_srq_wr),
                cq_depth_max: most(device.max_cqe),
                queue_pairs_max: most(device.max_qp),
                regions_max: most(device.max_mr),
                message_bytes_max: attr.max_msg_sz,
            },
            registrations: Vec::new(),
            cqs: Table::new(),
            srqs: Table::new(),
            qps: Table::new(),
            chains: Chains::new(),
            name,
        })
    }
}

/// Finds the device that was asked for, or says what is missing.
fn choose(names: &[String], wanted: Option<&str>) -> Result<usize, RdmaOpenError> {
    if names.is_empty() {
        let kernel = entries("/sys/class/infiniband", "");
        return Err(absent(&kernel, entries("/dev/infiniband", "uverbs").len()));
    }
    let devices = names.join(", ");
    match wanted {
        Some(name) => {
            let at = names.iter().position(|known| known == name);
            at.ok_or_else(|| RdmaOpenError::NotFound {
                device: name.to_owned(),
                devices,
            })
        }
        None if names.len() == 1 => Ok(0),
        None => Err(RdmaOpenError::Several { devices }),
    }
}

/// Why the library lists no device.
fn absent(kernel: &[String], uverbs: usize) -> RdmaOpenError {
    if kernel.is_empty() {
        RdmaOpenError::NoDevice
    } else if uverbs == 0 {
        RdmaOpenError::NoUverbs
    } else {
        RdmaOpenError::NoProvider {
            devices: kernel.join(", "),
        }
    }
}

fn entries(folder: impl AsRef<Path>, prefix: &str) -> Vec<String> {
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = found.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(prefix)).collect();
    names.sort();
    names
}

/// GID tables of hardware have up to some hundred entries.
const GIDS_MAX: u32 = 256;

/// The GID to use, and its index.
fn choose_gid(
    context: *mut sys::ibv_context,
    port: u8,
    table_len: i32,
    wanted: Option<u8>,
) -> Option<(u8, [u8; 16])> {
    let len = u32::try_from(table_len).unwrap_or(0).min(GIDS_MAX);
    let mut best: Option<(u8, u8, [u8; 16])> = None;
    for index in 0..len {
        let index_short = u8::try_from(index).ok()?;
        if wanted.is_some_and(|wanted| wanted != index_short) {
            continue;
        }
        let mut entry = sys::ibv_gid_entry::zeroed();
        // SAFETY: the context is alive, and the entry is written to a variable that lives on.
        let status =
            unsafe { sys::ibv_query_gid_ex(context, u32::from(port), index, &raw mut entry, 0) };
        // SAFETY: every variant of the union is sixteen bytes of numbers.
        let gid = unsafe { entry.gid.raw };
        if status != 0 || gid == [0; 16] {
            continue;
        }
        let rank = rank(&gid, entry.gid_type == sys::IBV_GID_TYPE_ROCE_V2);
        if best.is_none_or(|(best, ..)| rank > best) {
            best = Some((rank, index_short, gid));
        }
    }
    best.map(|(_, index, gid)| (index, gid))
}

/// How well a GID serves: RoCE v2 is routed, and addresses of IPv4 are what operators give interfaces.
fn rank(gid: &[u8; 16], roce_v2: bool) -> u8 {
    let ipv4 = gid[..10] == [0; 10] && gid[10..12] == [0xFF; 2];
    u8::from(roce_v2) * 2 + u8::from(ipv4)
}

/// Bytes of an MTU code: 1 is 256, 5 is 4096.
fn mtu_bytes(code: sys::ibv_mtu) -> u16 {
    256 << code.clamp(1, 5).saturating_sub(1)
}

/// The code of an MTU: that of the next smaller one where there is none.
pub(super) fn mtu_code(bytes: u16) -> sys::ibv_mtu {
    match bytes {
        4096.. => sys::IBV_MTU_4096,
        2048.. => sys::IBV_MTU_2048,
        1024.. => sys::IBV_MTU_1024,
        512.. => sys::IBV_MTU_512,
        _ => sys::IBV_MTU_256,
    }
}

/// What a report says. Must be called before it is acknowledged.
pub(super) fn read_event(event: &sys::ibv_async_event) -> AsyncEvent {
    let qp_num = || {
        // SAFETY: the events for which this is called are of queue pairs.
        let qp = unsafe { event.element.qp };
        // SAFETY: a queue pair is not destroyed before its events are acknowledged.
        unsafe { (*qp).qp_num }
    };
    match event.event_type {
        sys::IBV_EVENT_CQ_ERR => AsyncEvent::CqError,
        sys::IBV_EVENT_QP_FATAL | sys::IBV_EVENT_QP_REQ_ERR => {
            AsyncEvent::QpError { qp_num: qp_num() }
        }
        sys::IBV_EVENT_QP_ACCESS_ERR => AsyncEvent::QpAccess { qp_num: qp_num() },
        sys::IBV_EVENT_QP_LAST_WQE_REACHED => AsyncEvent::LastReceive { qp_num: qp_num() },
        sys::IBV_EVENT_SRQ_ERR => AsyncEvent::SrqError,
        sys::IBV_EVENT_PORT_ACTIVE => AsyncEvent::Port { active: true },
        sys::IBV_EVENT_PORT_ERR => AsyncEvent::Port { active: false },
        sys::IBV_EVENT_DEVICE_FATAL => AsyncEvent::DeviceGone,
        _ => AsyncEvent::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_what_brings_it() {
        let kernel = [String::from("rxe0")];
        for (error, says) in [
            (absent(&[], 0), "rdma link add rxe0"),
            (absent(&kernel, 0), "modprobe ib_uverbs"),
            (
                absent(&kernel, 1),
                "apt-get install -y --no-install-recommends ibverbs-providers",
            ),
        ] {
            assert!(error.to_string().contains(says), "{error}");
        }
        let names = ["mlx5_0", "mlx5_1"].map(String::from);
        assert!(matches!(
            choose(&names, None),
            Err(RdmaOpenError::Several { .. })
        ));
        assert!(matches!(
            choose(&names, Some("x")),
            Err(RdmaOpenError::NotFound { .. })
        ));
        assert_eq!(choose(&names, Some("mlx5_1")).ok(), Some(1));
        assert_eq!(choose(&names[..1], None).ok(), Some(0));
    }

    #[test]
    fn a_routed_gid_of_ipv4_is_preferred() {
        let mut ipv4 = [0; 16];
        ipv4[10..].copy_from_slice(&[0xFF, 0xFF, 10, 9, 0, 1]);
        let local = [0xFE; 16];
        assert!(rank(&ipv4, true) > rank(&local, true));
        assert!(rank(&local, true) > rank(&ipv4, false));
        assert!(rank(&ipv4, false) > rank(&local, false));
    }

    #[test]
    fn mtu_codes_are_those_of_the_header() {
        for bytes in [256, 512, 1024, 2048, 4096] {
            assert_eq!(mtu_bytes(mtu_code(bytes)), bytes);
        }
        assert_eq!(mtu_code(1500), sys::IBV_MTU_1024);
    }
}
