//! The filter of an AF_PACKET socket: a classic BPF program that keeps other stations' frames from being copied.
//!
//! *Source*: Documentation/networking/filter.rst of Linux.

use ionian_ether::MacAddr;

/// Bytes of a frame that are kept: all.
const WHOLE: u32 = 0x0004_0000;

/// Instructions of a filter.
pub(crate) const LEN: usize = 8;

/// Passes frames to this station and to any group of stations.
pub(crate) fn program(mac: MacAddr) -> [libc::sock_filter; LEN] {
    let [a, b, c, d, e, f] = mac.0.map(u32::from);
    let load_byte = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let load_half = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    let load_word = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let any_bit = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    let end = libc::BPF_RET | libc::BPF_K;
    [
        op(load_byte, 0, 0, 0),
        // A group: the lowest bit of the first byte. Jumps count from the next instruction.
        op(any_bit, 1, 4, 0),
        op(load_word, 2, 0, 0),
        op(equal, c << 24 | d << 16 | e << 8 | f, 0, 3),
        op(load_half, 0, 0, 0),
        op(equal, a << 8 | b, 0, 1),
        op(end, WHOLE, 0, 0),
        op(end, 0, 0, 0),
    ]
}

const fn op(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the few instructions that the program uses.
    fn passes(program: &[libc::sock_filter], frame: &[u8]) -> bool {
        let (mut at, mut value) = (0usize, 0u32);
        let load = |from: u32, bytes: usize| {
            frame[from as usize..from as usize + bytes]
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
        };
        loop {
            let op = program[at];
            at += 1;
            let taken = match u32::from(op.code) {
                0x30 => {
                    value = load(op.k, 1);
                    continue;
                }
                0x28 => {
                    value = load(op.k, 2);
                    continue;
                }
                0x20 => {
                    value = load(op.k, 4);
                    continue;
                }
                0x15 => value == op.k,
                0x45 => value & op.k != 0,
                0x06 => return op.k != 0,
                code => panic!("instruction {code:#x}"),
            };
            at += usize::from(if taken { op.jt } else { op.jf });
        }
    }

    #[test]
    fn own_frames_and_those_for_groups_pass() {
        let mac = MacAddr([2, 0x10, 0x20, 0x30, 0x40, 0x50]);
        let program = program(mac);
        assert!(passes(&program, &mac.0));
        assert!(passes(&program, &MacAddr::BROADCAST.0));
        assert!(passes(&program, &[0x33, 0x33, 0xff, 0, 0, 1]));
        for at in 0..6 {
            for bit in 0..8 {
                let mut other = mac.0;
                other[at] ^= 1 << bit;
                let group = other[0] & 1 != 0;
                assert_eq!(passes(&program, &other), group, "{:?}", MacAddr(other));
            }
        }
    }
}
