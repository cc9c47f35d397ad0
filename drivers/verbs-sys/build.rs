//! Makes the bindings of libibverbs where the feature `link` asks for them, and does nothing otherwise.
//!
//! The hot calls of the verbs are static inline functions that jump through a table in the device's context: bindgen writes
//! a C file that wraps them, which is compiled here.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=wrapper.h");
    #[cfg(feature = "link")]
    link();
}

#[cfg(feature = "link")]
fn link() {
    use std::path::PathBuf;
    use std::process::exit;

    /// Oldest libibverbs with everything that is bound here.
    const VERSION_MIN: &str = "1.11";
    const INSTALL: &str = "on Debian: apt-get install -y --no-install-recommends libibverbs-dev libclang-dev pkg-config";

    let fail = |what: String| -> ! {
        println!("cargo::error={what}; {INSTALL}");
        exit(1);
    };
    let library = match pkg_config::Config::new()
        .atleast_version(VERSION_MIN)
        .probe("libibverbs")
    {
        Ok(library) => library,
        Err(error) => fail(format!(
            "pkg-config does not find libibverbs {VERSION_MIN} or newer ({})",
            error.to_string().lines().next().unwrap_or_default()
        )),
    };
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let wrapped = out.join("wrapped");
    let includes = library
        .include_paths
        .iter()
        .map(|path| format!("-I{}", path.display()));
    let bindings = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(includes)
        .allowlist_function("_*ibv_.*")
        .allowlist_type("ibv_.*")
        .allowlist_var("IBV_.*")
        .default_enum_style(bindgen::EnumVariation::Consts)
        .derive_debug(false)
        .prepend_enum_name(false)
        .layout_tests(false)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .generate_comments(false)
        .wrap_static_fns(true)
        .wrap_static_fns_path(&wrapped)
        .generate();
    let bindings = match bindings {
        Ok(bindings) => bindings,
        Err(error) => fail(format!(
            "libclang could not read the verbs' header ({error})"
        )),
    };
    bindings
        .write_to_file(out.join("bindings.rs"))
        .expect("OUT_DIR can be written");
    cc::Build::new()
        .file(wrapped.with_extension("c"))
        .include(".")
        .includes(&library.include_paths)
        .warnings(false)
        .compile("ionian_verbs_wrapped");
}
