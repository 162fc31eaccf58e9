//! The `forebay` binary: hands the command line to the library and returns its exit code.

#[global_allocator]
static ALLOC: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    forebay::cli::run()
}
