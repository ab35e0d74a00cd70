//! Background tasks that end with their owner.

use std::cell::RefCell;
use std::future::Future;

use tokio::task::AbortHandle;

/// Local tasks; dropping this ends them.
#[derive(Debug, Default)]
pub(crate) struct Tasks(RefCell<Vec<AbortHandle>>);

impl Tasks {
    /// Starts a task on the current `LocalSet`.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let handle = tokio::task::spawn_local(task).abort_handle();
        self.0.borrow_mut().push(handle);
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in self.0.get_mut().drain(..) {
            task.abort();
        }
    }
}
