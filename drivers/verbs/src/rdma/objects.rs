//! Tables of objects of the library, and registrations of memory.

use std::fmt;
use std::sync::Arc;

use ionian_driver_api::dma::Arena;
use ionian_verbs_sys as sys;

use super::{check, made, refused};
use crate::api::DeviceError;

/// Puts an object into the first free place and returns its number.
pub(super) fn put<T>(table: &mut Vec<Option<T>>, object: T) -> u32 {
    let place = table.iter().position(Option::is_none).unwrap_or_else(|| {
        table.push(None);
        table.len() - 1
    });
    table[place] = Some(object);
    u32::try_from(place).expect("a device has fewer objects")
}

/// Objects of one kind, by number.
pub(super) struct Table<T> {
    objects: Vec<Option<*mut T>>,
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.objects).finish()
    }
}

impl<T> Table<T> {
    pub(super) const fn new() -> Self {
        Self {
            objects: Vec::new(),
        }
    }

    pub(super) fn put(&mut self, object: *mut T) -> u32 {
        put(&mut self.objects, object)
    }

    pub(super) fn get(&self, number: u32, call: &'static str) -> Result<*mut T, DeviceError> {
        let object = self.objects.get(number as usize).copied().flatten();
        object.ok_or_else(|| refused(call, libc::EINVAL))
    }

    /// Has `destroy` destroy an object, and forgets it where that succeeds.
    pub(super) fn remove(
        &mut self,
        number: u32,
        call: &'static str,
        destroy: impl FnOnce(*mut T) -> i32,
    ) -> Result<(), DeviceError> {
        let object = self.get(number, call)?;
        check(call, destroy(object))?;
        self.objects[number as usize] = None;
        Ok(())
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = *mut T> {
        self.objects.drain(..).flatten()
    }
}

/// Registered memory.
#[derive(Debug)]
pub(super) struct Registration {
    region: *mut sys::ibv_mr,
    lkey: u32,
    /// Alive for as long as the device may touch it.
    pub(super) arena: Arc<Arena>,
}

impl Registration {
    /// Registers `len` bytes from `start`.
    ///
    /// # Safety
    ///
    /// The range is inside the arena, and nobody uses it against what `access` lets the device do.
    pub(super) unsafe fn new(
        domain: *mut sys::ibv_pd,
        arena: &Arc<Arena>,
        start: *mut u8,
        len: usize,
        access: sys::ibv_access_flags,
    ) -> Result<Self, DeviceError> {
        let call = "ibv_reg_mr";
        let access = i32::try_from(access).map_err(|_| refused(call, libc::EINVAL))?;
        // SAFETY: the domain is alive, and the range is inside an allocation that is kept below.
        let region = unsafe { sys::ibv_reg_mr(domain, start.cast(), len, access) };
        let region = made(call, region)?;
        // SAFETY: the registration was just made; the field does not change.
        let lkey = unsafe { (*region).lkey };
        Ok(Self {
            region,
            lkey,
            arena: Arc::clone(arena),
        })
    }

    pub(super) const fn lkey(&self) -> u32 {
        self.lkey
    }

    pub(super) fn rkey(&self) -> u32 {
        // SAFETY: the registration is alive; the field does not change.
        unsafe { (*self.region).rkey }
    }

    /// Ends it; no access by it happens after success.
    pub(super) fn end(self) -> Result<(), (Self, DeviceError)> {
        // SAFETY: the registration is alive, and its only pointer goes with `self`.
        let status = unsafe { sys::ibv_dereg_mr(self.region) };
        check("ibv_dereg_mr", status).map_err(|error| (self, error))
    }
}
