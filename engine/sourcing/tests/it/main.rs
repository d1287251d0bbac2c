//! The layer on the embedded store, as an application uses it.

mod repository;
mod upcasting;

use annals::{Settings, Store};
use std::future::Future;
use tempfile::TempDir;

/// A new store in a directory of its own.
struct Fresh {
    store: Store,
    directory: TempDir,
}

impl Fresh {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { store: Store::open_with(directory.path(), settings).unwrap(), directory }
    }

    /// The same store, closed and opened again.
    fn again(self) -> Self {
        self.store.close().unwrap();
        Self { store: Store::open(self.directory.path()).unwrap(), directory: self.directory }
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}
