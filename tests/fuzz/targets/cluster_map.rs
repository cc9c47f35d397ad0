//! The cluster map that a controller sends to clients and nodes.
//!
//! Holds: no input panics or asks for memory beyond its limits; an accepted map, written and read again, is the same map.
#![no_main]

use ionian_wire::directory::ClusterMap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(map) = ClusterMap::read(data) {
        let bytes = map.to_bytes().expect("a map that was read fits");
        assert_eq!(ClusterMap::read(&bytes), Ok(map));
    }
});
