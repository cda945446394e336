//! Progress of what takes long, on standard error. Hidden when that is no terminal, and with `--json`.

use std::time::Duration;

use hypernet_sdk::api::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Output;
use super::words;

/// A bar, or a spinner while nobody knows how much there is.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    counting: Counting,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counting {
    Nothing,
    Bytes,
    Files,
}

fn style(counting: Counting) -> ProgressStyle {
    let template = match counting {
        Counting::Nothing => "{spinner} {msg} ({elapsed})",
        Counting::Bytes => "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}, {eta} left",
        Counting::Files => "{msg} [{bar:30}] {human_pos}/{human_len}, {eta} left",
    };
    // The templates are constants; one that does not parse shows the library's own bar.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

impl Bar {
    pub(crate) fn new(output: &Output, message: impl Into<String>) -> Self {
        let target = if output.is_json() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target).with_style(style(Counting::Nothing));
        bar.set_message(message.into());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar, counting: Counting::Nothing }
    }

    /// What happens now.
    pub(crate) fn message(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// How many of how many are done.
    pub(crate) fn count(&mut self, done: u64, total: u64) {
        self.show(Counting::Files, done, total);
    }

    /// How many are done, and of how many once that is known. What was done before counts for the time that is left.
    pub(crate) fn count_of(&mut self, counting: Counting, done: u64, total: Option<u64>) {
        self.bar.set_position(done);
        let Some(total) = total else { return };
        if self.counting != counting {
            self.counting = counting;
            self.bar.set_style(style(counting));
        }
        // What is counted may be changed meanwhile.
        self.bar.set_length(total.max(done));
    }

    /// Nobody sees it.
    pub(crate) fn is_hidden(&self) -> bool {
        self.bar.is_hidden()
    }

    /// How far an operation of the agent has come.
    pub(crate) fn progress(&mut self, progress: &Progress) {
        let mut message = progress.phase.clone();
        if progress.bytes_total > 0 && progress.files_total > 0 {
            message +=
                &format!(" {}/{}", words::count(progress.files_done), words::plural(progress.files_total, "file"));
        }
        if progress.bytes_in_flight > 0 {
            message += &format!(", {} on the way to peers", words::bytes(progress.bytes_in_flight));
        }
        if let Some(waiting) = &progress.waiting {
            message += &format!(": {waiting}");
        }
        self.message(message);
        match (progress.bytes_total, progress.files_total) {
            (0, 0) => self.show(Counting::Nothing, 0, 0),
            (0, files) => self.show(Counting::Files, progress.files_done, files),
            (bytes, _) => self.show(Counting::Bytes, progress.bytes_done, bytes),
        }
    }

    fn show(&mut self, counting: Counting, done: u64, total: u64) {
        if counting != self.counting {
            self.counting = counting;
            self.bar.set_style(style(counting));
            self.bar.reset_eta();
        }
        if counting != Counting::Nothing {
            // Totals grow while an operation finds more to do.
            self.bar.set_length(total.max(done));
            self.bar.set_position(done);
        }
    }

    /// Takes the bar away, so that the answer can be written.
    pub(crate) fn clear(self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_between_what_is_known() {
        let mut bar = Bar::new(&Output::new(true), "asking");
        bar.progress(&Progress { phase: "looking".into(), ..Progress::default() });
        assert_eq!((bar.counting, bar.bar.length()), (Counting::Nothing, None));
        let seen =
            Progress { phase: "sealing".into(), bytes_done: 5, bytes_total: 9, files_total: 2, ..Progress::default() };
        bar.progress(&seen);
        assert_eq!((bar.counting, bar.bar.position(), bar.bar.length()), (Counting::Bytes, 5, Some(9)));
        assert_eq!(bar.bar.message(), "sealing 0/2 files");
        bar.count(3, 2);
        assert_eq!((bar.counting, bar.bar.length()), (Counting::Files, Some(3)));
    }

    #[test]
    fn what_is_not_counted_yet_is_a_spinner() {
        let mut bar = Bar::new(&Output::new(true), "copying");
        assert!(bar.is_hidden());
        bar.count_of(Counting::Files, 5, None);
        assert_eq!((bar.counting, bar.bar.position(), bar.bar.length()), (Counting::Nothing, 5, None));
        bar.count_of(Counting::Files, 6, Some(9));
        assert_eq!((bar.counting, bar.bar.position(), bar.bar.length()), (Counting::Files, 6, Some(9)));
        bar.count_of(Counting::Files, 10, Some(9));
        assert_eq!((bar.bar.position(), bar.bar.length()), (10, Some(10)));
    }

    #[test]
    fn templates_parse() {
        for template in [Counting::Nothing, Counting::Bytes, Counting::Files] {
            drop(style(template));
        }
        assert!(ProgressStyle::with_template("{binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}").is_ok());
    }
}
