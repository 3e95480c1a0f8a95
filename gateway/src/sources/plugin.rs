//! A loaded plugin.

#![expect(unsafe_code, reason = "loads a library and calls its functions")]

use std::{
    ffi::c_void,
    fmt,
    os::fd::{AsRawFd as _, IntoRawFd as _},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    ptr, slice,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use jsonschema::error::ValidationErrorKind;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use recgate_plugin_api::{
    Error, ErrorCode,
    abi::{self, Prefixed as _, RgDescriptor, RgError, RgPlugin, RgPluginInit, RgStr},
};
use serde_json::Value;

use super::{
    LoadError, SourceError, check::Checked, convert, elf, host, instance::Instance, library::PluginInfo,
};

/// For `rg_plugin_init`, and for `config_schema`.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a schema.
const SCHEMA_MAX: u64 = 1 << 20;
/// Problems that are named of one configuration.
const PROBLEMS_MAX: usize = 50;

/// Bounds for the calls of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// Deadline of each call; of a scan, the longest time without anything told.
    pub timeout: Duration,
    /// Calls at once, at most; a plugin may ask for fewer. 0 leaves it to the host (8). Never more than 64.
    pub max_calls: usize,
}

/// What is wrong with a source's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsProblem {
    /// Where: a JSON pointer (RFC 6901), empty for the settings as a whole.
    pub pointer: String,
    /// What, on one line, without a full stop.
    pub message: String,
    /// Where the pointer's key is unknown: the keys that there are instead, as far as the schema tells.
    pub known_keys: Option<Vec<String>>,
}

impl fmt::Display for SettingsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() { "the settings" } else { &self.pointer };
        write!(f, "{}: {}", convert::escaped(place), self.message)
    }
}

/// A plugin that is loaded and checked. It stays loaded for the life of the process.
#[derive(Debug)]
pub struct Plugin {
    info: PluginInfo,
    table: RgPlugin,
    schema: Value,
    validator: jsonschema::Validator,
}

impl Plugin {
    /// Loads a file that was checked, initialises it and asks for its schema.
    pub(super) fn load(checked: Checked, info: PluginInfo) -> Result<Self, LoadError> {
        let path = checked.path.clone();
        let init = link(checked)?;
        let host = SendPtr(host::table(&info.name, info.abi.1));
        let at = path.clone();
        let table = in_time("rg_plugin_init", move || initialise(init, host, &at))
            .unwrap_or_else(|detail| Err(LoadError::Init { path: path.clone(), detail }))?;
        check_table(&table, &path)?;
        let wrong = |detail: String| LoadError::Schema { path: path.clone(), detail };
        let text =
            in_time("config_schema", move || schema_text(&table)).and_then(|text| text).map_err(wrong)?;
        let schema: Value = serde_json::from_str(&text).map_err(|e| wrong(format!("it is no JSON: {e}")))?;
        let validator = jsonschema::validator_for(&schema)
            .map_err(|e| wrong(format!("it is no JSON Schema that works without other files: {e}")))?;
        Ok(Self { info, table, schema, validator })
    }

    /// What the plugin says of itself, without its schema.
    pub fn info(&self) -> &PluginInfo {
        &self.info
    }

    /// The plugin's name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// JSON Schema of the configuration.
    pub fn schema(&self) -> &Value {
        &self.schema
    }

    /// What is wrong with a configuration. Values are not repeated, as they may be secrets. Empty where all is right.
    pub fn check_settings(&self, settings: &Value) -> Vec<SettingsProblem> {
        let mut problems: Vec<SettingsProblem> = Vec::new();
        for error in self.validator.iter_errors(settings) {
            if problems.len() >= PROBLEMS_MAX {
                let message = "there are more problems".to_owned();
                problems.push(SettingsProblem { pointer: String::new(), message, known_keys: None });
                break;
            }
            let pointer = error.instance_path().as_str();
            let ValidationErrorKind::AdditionalProperties { unexpected } = error.kind() else {
                let message = convert::escaped(&error.masked_with("the value").to_string());
                problems.push(SettingsProblem { pointer: pointer.to_owned(), message, known_keys: None });
                continue;
            };
            let known_keys = self.known_keys(error.schema_path().as_str());
            for key in unexpected.iter().take(PROBLEMS_MAX) {
                problems.push(SettingsProblem {
                    pointer: format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1")),
                    message: format!("unknown key {key:?}"),
                    known_keys: Some(known_keys.clone()),
                });
            }
        }
        problems
    }

    /// What of the settings would let a call outlast this timeout of calls, for the operator.
    pub fn outlasts(&self, settings: &Value, timeout: Duration) -> Option<String> {
        outlasting(&self.schema, settings, "", timeout)
    }

    /// The keys beside an `additionalProperties` of the schema.
    fn known_keys(&self, additional_properties: &str) -> Vec<String> {
        let parent = additional_properties.rsplit_once('/').map_or("", |(parent, _)| parent);
        let properties = self.schema.pointer(&format!("{parent}/properties")).and_then(Value::as_object);
        properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
    }

    /// Makes an instance. This runs the plugin's code: it blocks, for the timeout at most.
    ///
    /// # Errors
    ///
    /// `Invalid` where the settings don't satisfy the schema, else what the plugin reports, or the host on its behalf.
    pub fn create(
        self: &Arc<Self>,
        name: &str,
        settings: &Value,
        limits: CallLimits,
    ) -> Result<Arc<Instance>, SourceError> {
        let source_name: Arc<str> = name.into();
        let failed = |error| SourceError { source_name: Arc::clone(&source_name), error };
        let problems = self.check_settings(settings);
        if !problems.is_empty() {
            let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
            return Err(failed(Error::new(ErrorCode::Invalid, problems.join("; "))));
        }
        let (sender, receiver) = mpsc::sync_channel(1);
        let (plugin, name, settings) = (Arc::clone(self), Arc::clone(&source_name), settings.to_string());
        let create = move || {
            // An instance whose caller has gone is dropped, and so destroyed.
            let _ = sender.send(Instance::create(plugin, name, &settings, limits));
        };
        let spawned = thread::Builder::new().name("rg-create".to_owned()).spawn(create);
        spawned
            .map_err(|e| failed(Error::new(ErrorCode::Unavailable, format!("can't start a thread: {e}"))))?;
        let timeout =
            |_| Error::new(ErrorCode::Timeout, format!("create took longer than {:?}", limits.timeout));
        receiver.recv_timeout(limits.timeout).map_err(timeout).and_then(|result| result).map_err(failed)
    }

    /// The minor that counts: the smaller one of the two sides.
    pub(super) fn abi_minor(&self) -> u32 {
        self.info.abi.1.min(abi::ABI_MINOR)
    }

    pub(super) fn table(&self) -> &RgPlugin {
        &self.table
    }
}

/// What of the settings lets a call wait for longer than the gateway waits for the call.
///
/// A schema says of a number of seconds, with the keyword `x-recgate-times-in-call-timeout`, how many times it may pass
/// within one call without a sign of life.
fn outlasting(schema: &Value, settings: &Value, pointer: &str, timeout: Duration) -> Option<String> {
    let properties = schema.get("properties")?.as_object()?;
    properties.iter().find_map(|(key, property)| {
        let pointer = format!("{pointer}/{key}");
        let given = settings.get(key);
        if let Some(times) = property.get("x-recgate-times-in-call-timeout").and_then(Value::as_u64) {
            let seconds = given.or_else(|| property.get("default"))?.as_u64()?;
            let needed = Duration::from_secs(seconds.saturating_mul(times));
            return (needed >= timeout).then(|| {
                format!(
                    "{pointer}: {times} times {seconds} s may pass within one call, and call_timeout is {timeout:?}; make \
                     call_timeout more than {needed:?}, or this shorter"
                )
            });
        }
        outlasting(property, given?, &pointer, timeout)
    })
}

/// Loads the library from the descriptor on which its checks were made, and finds `rg_plugin_init`.
///
/// The descriptor stays open for ever: the linker knows libraries by their path, and `/proc/self/fd/N` must never come
/// to mean another one. (A plugin therefore can't find neighbours by `$ORIGIN`; it carries what it needs.)
fn link(checked: Checked) -> Result<RgPluginInit, LoadError> {
    let path = checked.path;
    let through = format!("/proc/self/fd/{}", checked.file.as_raw_fd());
    let _ = checked.file.into_raw_fd();
    let refused = |e: libloading::Error| {
        let detail = e.to_string().replace(&through, "the file");
        LoadError::Link { path: path.clone(), detail }
    };
    // SAFETY: constructors of the library run here. That it may run code in this process was decided by whoever
    // put it beside the executable or configured it, and its file has passed all checks.
    let library = unsafe { Library::open(Some(&through), RTLD_NOW | RTLD_LOCAL) }.map_err(refused)?;
    // SAFETY: only the address is taken; it is read below.
    let descriptor = unsafe { library.get::<*const RgDescriptor>(elf::DESCRIPTOR.as_bytes()) };
    let descriptor = descriptor.map_err(refused)?.into_raw().cast::<RgDescriptor>();
    // SAFETY: the address of a symbol whose object has at least this size in the file, as was checked there.
    if unsafe { descriptor.read_unaligned() } != checked.descriptor {
        let detail = "the loaded descriptor isn't the one in the file".to_owned();
        return Err(LoadError::Descriptor { path, detail });
    }
    // SAFETY: the ABI gives the symbol this type.
    let init = unsafe { library.get::<RgPluginInit>(elf::INIT.as_bytes()) };
    let init = *init.map_err(refused)?;
    // Never unloaded: destructors of thread-local values outlive a mapping.
    let _ = library.into_raw();
    Ok(init)
}

fn initialise(init: RgPluginInit, host: SendPtr<abi::RgHost>, path: &Path) -> Result<RgPlugin, LoadError> {
    let refused = |detail| LoadError::Init { path: path.to_owned(), detail };
    let mut table = RgPlugin::empty();
    let mut error = RgError::empty();
    // SAFETY: the host lives for ever, the others for this call; all are as the header describes.
    let code = unsafe { init(host.into_inner(), &mut table, &mut error) };
    if code != abi::OK {
        return Err(refused(convert::error(code, &error).to_string()));
    }
    // SAFETY: `table` is a whole struct of ours.
    let given = table.struct_size;
    table.struct_size = given.min(size_of::<RgPlugin>() as u32);
    // SAFETY: `table` is a whole struct of ours, and says no more than that.
    unsafe { abi::read_prefix(&table) }.map_err(|e| refused(format!("its table has {e}")))
}

fn check_table(table: &RgPlugin, path: &Path) -> Result<(), LoadError> {
    let missing = [
        ("config_schema", table.config_schema.is_none()),
        ("create", table.create.is_none()),
        ("destroy", table.destroy.is_none()),
        ("capabilities", table.capabilities.is_none()),
        ("health", table.health.is_none()),
        ("scan", table.scan.is_none()),
        ("stat", table.stat.is_none()),
        ("open", table.open.is_none()),
        ("read_at", table.read_at.is_none()),
        ("close", table.close.is_none()),
    ];
    match missing.into_iter().find(|(_, missing)| *missing) {
        Some((function, _)) => Err(LoadError::MissingFunction { path: path.to_owned(), function }),
        None => Ok(()),
    }
}

fn schema_text(table: &RgPlugin) -> Result<String, String> {
    let config_schema = table.config_schema.ok_or("there is none")?;
    let mut text: Option<Result<String, String>> = None;
    let mut error = RgError::empty();
    // SAFETY: `take_text` is made for this context, which lives for the call.
    let code = unsafe { config_schema(take_text, ptr::from_mut(&mut text).cast(), &mut error) };
    if code != abi::OK {
        return Err(convert::error(code, &error).to_string());
    }
    text.unwrap_or_else(|| Err("config_schema told nothing".to_owned()))
}

/// Takes the schema; the context is an `Option<Result<String, String>>`.
unsafe extern "C" fn take_text(ctx: *mut c_void, text: RgStr) -> i32 {
    let taken = catch_unwind(AssertUnwindSafe(|| {
        if text.len > SCHEMA_MAX {
            return Err(format!("it has {} bytes, more than {SCHEMA_MAX}", text.len));
        }
        if text.ptr.is_null() {
            return Err("it is NULL".to_owned());
        }
        // SAFETY: the header demands of plugins that the text lives for the call; it isn't NULL and not long.
        let bytes = unsafe { slice::from_raw_parts(text.ptr.cast::<u8>(), text.len as usize) };
        String::from_utf8(bytes.to_vec()).map_err(|e| format!("it isn't UTF-8: {e}"))
    }));
    // SAFETY: the context that `schema_text` gave, which waits for the call.
    if let Some(room) = unsafe { ctx.cast::<Option<Result<String, String>>>().as_mut() } {
        *room = Some(taken.unwrap_or_else(|_| Err("the host failed to read it".to_owned())));
    }
    abi::OK
}

/// Runs what may hang on a thread of its own.
fn in_time<T: Send + 'static>(what: &str, body: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let spawned = thread::Builder::new().name("rg-load".to_owned()).spawn(move || sender.send(body()));
    spawned.map_err(|e| format!("can't start a thread: {e}"))?;
    receiver.recv_timeout(START_TIMEOUT).map_err(|_| {
        format!("{what} didn't return within {START_TIMEOUT:?}; restart the gateway to try again")
    })
}

/// A pointer that is good on every thread.
struct SendPtr<T: 'static>(&'static T);

// SAFETY: a host's table is read-only, and its functions may be called from any thread.
unsafe impl<T> Send for SendPtr<T> {}

impl<T> SendPtr<T> {
    fn into_inner(self) -> *const T {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_setting_that_outlasts_calls_is_named() {
        let number = json!({"type": "integer", "default": 10, "x-recgate-times-in-call-timeout": 2});
        let inner = json!({"properties": {"timeout": number, "other": {"type": "integer"}}});
        let schema = json!({"properties": {"http": inner, "root": {"type": "string"}}});
        let wrong = |settings: Value, seconds| {
            outlasting(&schema, &settings, "", Duration::from_secs(seconds)).unwrap_or_default()
        };
        assert_eq!(wrong(json!({"root": "/x"}), 1), "", "what isn't configured doesn't count");
        assert_eq!(wrong(json!({"http": {"other": 90}}), 21), "");
        assert!(
            wrong(json!({"http": {}}), 20).starts_with("/http/timeout: 2 times 10 s"),
            "the default counts"
        );
        assert_eq!(wrong(json!({"http": {"timeout": 4}}), 20), "");
        assert!(wrong(json!({"http": {"timeout": 15}}), 30).contains("call_timeout is 30s"));
        assert!(wrong(json!({"http": {"timeout": u64::MAX}}), 30).contains("call_timeout"));
    }
}
