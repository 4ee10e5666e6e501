//! The interface through which the admin API reloads and checks the config file. `app` implements
//! it, so that this folder need not know the config.

use std::path::PathBuf;

use futures_util::future::BoxFuture;
use serde::Deserialize;

use crate::clock::Wall;
use crate::policy::edit::{Edit, EditTrial};
use crate::policy::route::RouteMode;

/// Reloads and checks the config file.
pub trait ReloadHandle: Send + Sync {
    /// The current status. Must not block for long.
    fn status(&self) -> ReloadStatus;

    /// Reads the file again and activates it if it is valid.
    fn reload(&self) -> BoxFuture<'static, ReloadReply>;

    /// The result that a reload with this text would have. Changes nothing, and reads no file that
    /// the text includes.
    fn check(&self, text: CheckedText) -> BoxFuture<'static, ReloadReply>;

    /// Tries changes on the file in force. May block for a tenth of a second if the file is long.
    fn try_edits(&self, edits: &[Edit]) -> EditTrial;

    /// The settings of a sidecar that was started without a file, as tables of one. They are those
    /// of its command line, and hold no secret.
    fn settings_without_file(&self) -> Option<String>;
}

/// A text to check.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckedText {
    /// That of the file.
    pub text: String,
    /// The files that it includes; none if they did not come with it.
    #[serde(default)]
    pub included: Option<Vec<IncludedText>>,
}

/// A file that a text to check includes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncludedText {
    /// What it is called in diagnostics.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// The first of several ways to change the file that may be shown. One that has not been tried yet
/// is waited for: the best way comes first.
pub(super) fn first_that_passes<'a>(
    ways: impl IntoIterator<Item = &'a [Edit]>,
    file: &dyn ReloadHandle,
) -> (usize, EditTrial) {
    let mut ways = ways.into_iter().map(|edits| file.try_edits(edits)).enumerate();
    ways.find(|(_, trial)| *trial != EditTrial::Failed).unwrap_or((0, EditTrial::Failed))
}

/// The result of a reload or a check, as JSON.
#[derive(Clone, Debug)]
pub struct ReloadReply {
    /// Whether the file is valid.
    pub ok: bool,
    /// The body of the response.
    pub json: String,
}

/// The state of the file and of the rules in force.
#[derive(Clone, Debug)]
pub struct ReloadStatus {
    /// The file; none if the rules were not read from one.
    pub file: Option<PathBuf>,
    /// The switch for all routes.
    pub mode: RouteMode,
    /// The digest of the rules in force: the same in sidecars with the same rules.
    pub rules_digest: String,
    /// When the rules in force were loaded.
    pub loaded: Wall,
    /// How often rules were loaded.
    pub loads: u64,
    /// When and why the current file was rejected.
    pub refused: Option<(Wall, String)>,
    /// Changed keys that need a restart.
    pub restart_needed: Vec<String>,
}
