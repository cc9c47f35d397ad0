//! Compiles the messages of the API in Rust: no `protoc` is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["control.proto", "raft.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".ionian.control.v1.AttachMessage")
        .compile_fds(files)?;
    Ok(())
}
