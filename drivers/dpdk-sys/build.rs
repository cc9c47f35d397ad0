//! Binds the installed DPDK when the feature `link` asks for it; otherwise does nothing.
//!
//! pkg-config's own flags go to libclang and to the C compiler alike: DPDK's headers mean what `-include rte_config.h` and its `-march`
//! say, and a structure laid out under other flags would be another one.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "link")]
    link::bind();
}

#[cfg(feature = "link")]
mod link {
    use std::path::PathBuf;
    use std::process::Command;

    const SHIM: &str = "c/shim.h";
    const INSTALL: &str =
        "on Debian: apt-get install -y libdpdk-dev dpdk-dev libclang-dev pkg-config";

    /// Functions that are called as they are. Everything else goes through the shim.
    const FUNCTIONS: &[&str] = &[
        "ionian_.*",
        "rte_eal_init",
        "rte_eal_cleanup",
        "rte_eal_get_runtime_dir",
        "rte_eal_hotplug_add",
        "rte_eal_hotplug_remove",
        "rte_strerror",
        "rte_version",
        "rte_openlog_stream",
        "rte_log_set_global_level",
        "rte_thread_register",
        "rte_thread_unregister",
        "rte_mempool_free",
        "rte_mempool_avail_count",
        "rte_ring_create",
        "rte_ring_free",
        "rte_eth_dev_count_avail",
        "rte_eth_dev_get_port_by_name",
        "rte_eth_dev_adjust_nb_rx_tx_desc",
        "rte_eth_rx_queue_setup",
        "rte_eth_tx_queue_setup",
        "rte_eth_dev_start",
        "rte_eth_dev_stop",
        "rte_eth_dev_reset",
        "rte_eth_dev_close",
        "rte_eth_promiscuous_enable",
        "rte_eth_macaddr_get",
        "rte_eth_dev_callback_register",
        "rte_eth_dev_callback_unregister",
    ];
    const VARIABLES: &[&str] = &[
        "IONIAN_.*",
        "RTE_EAL_PMD_PATH",
        "RTE_PKTMBUF_HEADROOM",
        "RTE_MAX_ETHPORTS",
    ];

    /// Types of which only addresses are known.
    const OPAQUE: &[&str] = &[
        "_IO_FILE",
        "rte_mbuf",
        "rte_mempool",
        "rte_ring",
        "rte_flow",
        "rte_eth_rxconf",
        "rte_eth_txconf",
    ];

    pub(super) fn bind() {
        println!("cargo::rerun-if-changed={SHIM}");
        println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
        let found = pkg_config::Config::new()
            .atleast_version("22.11")
            .probe("libdpdk");
        if found.is_err() {
            fail(&format!(
                "DPDK 22.11 or newer was not found by pkg-config as `libdpdk` (`pkg-config --modversion libdpdk` says what it finds); {INSTALL}"
            ));
        }
        let flags = flags();
        let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
        let wrappers = out.join("wrappers.c");
        let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
        let shim = root.join(SHIM);

        let mut builder = bindgen::Builder::default()
            .header(shim.to_string_lossy())
            .clang_args(&flags)
            .use_core()
            .layout_tests(false)
            .derive_default(false)
            .generate_comments(false)
            .prepend_enum_name(false)
            .wrap_static_fns(true)
            .wrap_static_fns_path(&wrappers)
            .rust_edition(bindgen::RustEdition::Edition2024);
        // Reached through pointers only, and never looked into from Rust.
        for name in OPAQUE {
            builder = builder.blocklist_type(name).raw_line(format!(
                "#[repr(C)] pub struct {name} {{ _opaque: [u8; 0] }}"
            ));
        }
        for name in FUNCTIONS {
            builder = builder.allowlist_function(name);
        }
        for name in VARIABLES {
            builder = builder.allowlist_var(name);
        }
        let bindings = match builder.generate() {
            Ok(bindings) => bindings,
            Err(error) => fail(&format!(
                "libclang could not read DPDK's headers; {INSTALL} ({error})"
            )),
        };
        if let Err(error) = bindings.write_to_file(out.join("bindings.rs")) {
            fail(&format!("the bindings could not be written: {error}"));
        }

        let mut compiler = cc::Build::new();
        compiler.file(&wrappers).include(&root).warnings(false);
        // The wrappers include the shim by its path.
        for flag in &flags {
            compiler.flag(flag);
        }
        compiler.opt_level(3).compile("ionian_dpdk_shim");
        // The shim uses the library, so that the library has to come after it.
        if let Err(error) = pkg_config::Config::new()
            .atleast_version("22.11")
            .probe("libdpdk")
        {
            fail(&format!("pkg-config answered once and not twice: {error}"));
        }
    }

    /// What pkg-config says to compile with, word by word.
    fn flags() -> Vec<String> {
        println!("cargo::rerun-if-env-changed=PKG_CONFIG");
        let program = std::env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
        let output = match Command::new(&program)
            .args(["--cflags", "libdpdk"])
            .output()
        {
            Ok(output) if output.status.success() => output,
            Ok(output) => fail(&format!(
                "pkg-config --cflags libdpdk failed: {}",
                String::from_utf8_lossy(&output.stderr).replace('\n', " ")
            )),
            Err(error) => fail(&format!("pkg-config does not start ({error}); {INSTALL}")),
        };
        String::from_utf8_lossy(&output.stdout)
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }

    /// Ends the build with one sentence.
    fn fail(what: &str) -> ! {
        println!("cargo::error={what}");
        std::process::exit(1)
    }
}
