//! What the kernel says beside a frame: the tag that it took out, and the state of its checksums.

use std::mem::size_of;

use ionian_ether::{Checksum, Headers};

/// Room for the kernel's word beside one frame. Aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Auxiliary {
    header: libc::cmsghdr,
    data: libc::tpacket_auxdata,
    padding: u32,
}

/// Bytes of that room.
pub(crate) const BYTES: usize = size_of::<Auxiliary>();

/// What is to be done with a received frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tag {
    /// It is as it was on the wire.
    Whole,
    /// The kernel took out this tag, which goes back.
    Restore(u16),
    /// It is for another VLAN than the device's.
    Foreign,
}

impl Auxiliary {
    pub(crate) const fn empty() -> Self {
        // SAFETY: integers only, for which zero bits are a value.
        unsafe { std::mem::zeroed() }
    }

    /// The kernel's word, if it left one of `bytes` bytes here.
    fn word(&self, bytes: usize) -> Option<&libc::tpacket_auxdata> {
        let whole = size_of::<libc::cmsghdr>() + size_of::<libc::tpacket_auxdata>();
        (bytes >= whole
            && self.header.cmsg_level == libc::SOL_PACKET
            && self.header.cmsg_type == libc::PACKET_AUXDATA)
            .then_some(&self.data)
    }

    /// Who has to do with the checksums: the kernel vouches for those that a device has verified, and for those of a sender on
    /// this machine, which are not even filled in.
    pub(crate) fn checksum(&self, bytes: usize) -> Checksum {
        let vouched = libc::TP_STATUS_CSUM_VALID | libc::TP_STATUS_CSUMNOTREADY;
        match self.word(bytes) {
            Some(word) if word.tp_status & vouched != 0 => Checksum::Link,
            _ => Checksum::InFrame,
        }
    }

    /// What became of the frame's tag. The kernel takes tags out before a packet socket sees the frame.
    pub(crate) fn tag(&self, bytes: usize, headers: Headers) -> Tag {
        let tag = self
            .word(bytes)
            .filter(|word| word.tp_status & libc::TP_STATUS_VLAN_VALID != 0)
            .map(|word| word.tp_vlan_tci);
        match (tag, headers.vlan()) {
            (None, None) => Tag::Whole,
            (Some(tag), Some(vlan)) if tag & 0x0fff == vlan => Tag::Restore(tag),
            _ => Tag::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn with(status: u32, tci: u16) -> Auxiliary {
        let mut auxiliary = Auxiliary::empty();
        auxiliary.header.cmsg_level = libc::SOL_PACKET;
        auxiliary.header.cmsg_type = libc::PACKET_AUXDATA;
        auxiliary.data.tp_status = status;
        auxiliary.data.tp_vlan_tci = tci;
        auxiliary
    }

    #[test]
    fn tags_that_the_kernel_took_out_are_for_their_vlan_only() {
        let headers = |vlan| Headers::new(IpAddr::V4(Ipv4Addr::LOCALHOST), vlan);
        let (plain, tagged) = (headers(None), headers(Some(5)));
        assert_eq!(with(0, 0).tag(BYTES, plain), Tag::Whole);
        assert_eq!(with(0, 0).tag(BYTES, tagged), Tag::Foreign);
        // Priority 5, VLAN 5: the priority is no part of the VLAN.
        let valid = libc::TP_STATUS_VLAN_VALID;
        assert_eq!(with(valid, 0xa005).tag(BYTES, tagged), Tag::Restore(0xa005));
        assert_eq!(with(valid, 6).tag(BYTES, tagged), Tag::Foreign);
        assert_eq!(with(valid, 5).tag(BYTES, plain), Tag::Foreign);
        assert_eq!(with(valid, 5).tag(0, plain), Tag::Whole, "no word");
    }

    #[test]
    fn checksums_are_vouched_for_where_the_kernel_says_so() {
        assert_eq!(with(0, 0).checksum(BYTES), Checksum::InFrame);
        for status in [libc::TP_STATUS_CSUM_VALID, libc::TP_STATUS_CSUMNOTREADY] {
            assert_eq!(with(status, 0).checksum(BYTES), Checksum::Link);
            assert_eq!(with(status, 0).checksum(0), Checksum::InFrame, "no word");
        }
    }
}
