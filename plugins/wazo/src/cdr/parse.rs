//! Parsing call data records out of JSON, forgiving types and bounding sizes.
//!
//! serde's derived types give up at the first field of a wrong type, and then the rest of the file is lost; reading
//! into generic values takes many times the file's size. So fields are picked by name, as [`Field`]s.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use recgate_plugin_api::Error;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Bytes of a text that are kept.
const TEXT_MAX: usize = 1024;
/// Recordings of one record, and tags, that are kept.
const RECORDINGS_MAX: usize = 1000;
const TAGS_MAX: usize = 100;

/// The fields of a record that are read (wazo-call-logd `plugins/cdr/schemas.py`).
const CDR_FIELDS: &[&str] = &[
    "id",
    "tenant_uuid",
    "start",
    "end",
    "answer",
    "call_direction",
    "call_status",
    "conversation_id",
    "destination_extension",
    "destination_internal_extension",
    "destination_name",
    "destination_user_uuid",
    "requested_extension",
    "source_extension",
    "source_internal_extension",
    "source_internal_name",
    "source_name",
    "source_user_uuid",
];
/// The fields of `destination_details` that are read.
const DETAIL_FIELDS: &[&str] = &["type", "group_label", "queue_label"];
/// The fields of a recording.
const RECORDING_FIELDS: &[&str] = &["uuid", "start_time", "end_time", "deleted", "filename"];

/// One call.
#[derive(Debug, Default)]
pub(crate) struct Cdr {
    fields: Fields,
    details: Fields,
    /// Labels that the operator gave the call.
    pub(crate) tags: Vec<String>,
    /// What was recorded of it.
    pub(crate) recordings: Vec<Recording>,
    /// What is wrong with its lists.
    pub(crate) problems: Vec<&'static str>,
}

impl Cdr {
    /// A field of the record.
    pub(crate) fn field(&self, name: &str) -> &Field {
        self.fields.at(name)
    }

    /// A text of the record, `None` where it is missing, null, empty, or no text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.fields.at(name).text()
    }

    /// A text of `destination_details`.
    pub(crate) fn detail(&self, name: &str) -> Option<&str> {
        self.details.at(name).text()
    }
}

/// One recording of a call.
#[derive(Debug, Default)]
pub(crate) struct Recording(Fields);

impl Recording {
    /// A field of the recording.
    pub(crate) fn field(&self, name: &str) -> &Field {
        self.0.at(name)
    }

    /// A text of the recording, `None` where it is missing, null, empty, or no text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.at(name).text()
    }
}

/// A scalar of whatever type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Field {
    /// Missing or null.
    Absent,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number, not negative.
    Number(u64),
    /// A text, cut at 1024 bytes.
    Text(String),
    /// A list, an object, or another number.
    Other,
}

impl Field {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }
}

/// Why reading ended early.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The file is not JSON from here on, or no records; with line and column.
    Broken(String),
    /// The taker of the items wants no more.
    Stopped(Error),
}

/// Takes an item: its index in the file, and the record or what is wrong with it.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(u64, Result<Cdr, String>) -> Result<(), Error>;

/// Reads one document and hands over its items as they come.
pub(crate) fn read(reader: impl Read, sink: Sink<'_>) -> Result<(), Failed> {
    let mut run = Run { sink, index: 0, stopped: None };
    let mut json = serde_json::Deserializer::from_reader(reader);
    let result = json.deserialize_any(Document(&mut run)).and_then(|()| json.end());
    match (run.stopped, result) {
        (Some(error), _) => Err(Failed::Stopped(error)),
        (None, Err(error)) => Err(Failed::Broken(error.to_string())),
        (None, Ok(())) => Ok(()),
    }
}

struct Run<'s> {
    sink: Sink<'s>,
    index: u64,
    stopped: Option<Error>,
}

impl Run<'_> {
    fn give<E: serde::de::Error>(&mut self, item: Result<Cdr, String>) -> Result<(), E> {
        let index = self.index;
        self.index = index.saturating_add(1);
        (self.sink)(index, item).map_err(|error| {
            self.stopped = Some(error);
            E::custom("stopped")
        })
    }
}

/// The whole file: envelope, array, or single record.
struct Document<'r, 's>(&'r mut Run<'s>);

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer of GET /cdr: an object with items, an array of records, or a record")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        Items(self.0).visit_seq(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut single, mut is_envelope) = (Cdr::default(), false);
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                is_envelope = true;
                map.next_value_seed(Items(self.0))?;
            } else {
                absorb(&mut single, &key, &mut map)?;
            }
        }
        match (is_envelope, single.field("id")) {
            (true, _) => Ok(()),
            (false, Field::Absent) => {
                Err(serde::de::Error::custom("the object has neither items nor an id: these are no records"))
            }
            (false, _) => self.0.give(Ok(single)),
        }
    }
}

/// A list of records.
struct Items<'r, 's>(&'r mut Run<'s>);

impl<'de> DeserializeSeed<'de> for Items<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(item) = seq.next_element_seed(Lenient(CdrMap))? {
            self.0.give(item.ok_or_else(|| "it is not an object".to_owned()))?;
        }
        Ok(())
    }
}

/// Fills one field of a record.
fn absorb<'de, A: MapAccess<'de>>(cdr: &mut Cdr, key: &str, map: &mut A) -> Result<(), A::Error> {
    match key {
        "destination_details" => {
            cdr.details = map.next_value_seed(Lenient(FieldMap(DETAIL_FIELDS)))?.unwrap_or_default();
        }
        "tags" => {
            let (tags, complete) = map.next_value_seed(LenientList { of: Scalar, max: TAGS_MAX })?;
            cdr.tags = tags.iter().filter_map(|tag| tag.text().map(str::to_owned)).collect();
            if !complete {
                cdr.problems.push("tags is no list of at most 100 texts; the rest is ignored");
            }
        }
        "recordings" => {
            let of = Lenient(FieldMap(RECORDING_FIELDS));
            let (recordings, complete) = map.next_value_seed(LenientList { of, max: RECORDINGS_MAX })?;
            if !complete || recordings.iter().any(Option::is_none) {
                cdr.problems.push("recordings is no list of at most 1000 objects; the rest is ignored");
            }
            cdr.recordings = recordings.into_iter().flatten().map(Recording).collect();
        }
        _ => cdr.fields.absorb(CDR_FIELDS, key, map)?,
    }
    Ok(())
}

/// Fields by name; only names that somebody reads.
#[derive(Debug, Default)]
struct Fields(BTreeMap<&'static str, Field>);

impl Fields {
    fn at(&self, name: &str) -> &Field {
        self.0.get(name).unwrap_or(&Field::Absent)
    }

    fn absorb<'de, A: MapAccess<'de>>(
        &mut self,
        names: &'static [&'static str],
        key: &str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match names.iter().find(|&&name| name == key) {
            Some(name) => {
                let field = map.next_value_seed(Scalar)?;
                self.0.insert(name, field);
            }
            None => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// What an object is read into.
trait FromMap<'de>: Copy {
    type Value;
    fn read<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error>;
}

#[derive(Clone, Copy)]
struct CdrMap;

impl<'de> FromMap<'de> for CdrMap {
    type Value = Cdr;

    fn read<A: MapAccess<'de>>(self, mut map: A) -> Result<Cdr, A::Error> {
        let mut cdr = Cdr::default();
        while let Some(key) = map.next_key::<String>()? {
            absorb(&mut cdr, &key, &mut map)?;
        }
        Ok(cdr)
    }
}

#[derive(Clone, Copy)]
struct FieldMap(&'static [&'static str]);

impl<'de> FromMap<'de> for FieldMap {
    type Value = Fields;

    fn read<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = map.next_key::<String>()? {
            fields.absorb(self.0, &key, &mut map)?;
        }
        Ok(fields)
    }
}

/// An object, or `None` for anything else.
#[derive(Clone, Copy)]
struct Lenient<T>(T);

impl<'de, T: FromMap<'de>> DeserializeSeed<'de> for Lenient<T> {
    type Value = Option<T::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// The visits of a JSON value that give the same whatever the value is.
macro_rules! visit_alike {
    ($value:expr; $($visit:ident($type:ty)),*) => {
        $(fn $visit<E: serde::de::Error>(self, _: $type) -> Result<Self::Value, E> {
            Ok($value)
        })*
    };
}

impl<'de, T: FromMap<'de>> Visitor<'de> for Lenient<T> {
    type Value = Option<T::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        self.0.read(map).map(Some)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_seq(seq).map(|_| None)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    visit_alike!(None; visit_bool(bool), visit_u64(u64), visit_i64(i64), visit_f64(f64), visit_str(&str));
}

/// A list of which at most `max` are kept, and whether that is all of it. Null is an empty list.
struct LenientList<T> {
    of: T,
    max: usize,
}

impl<'de, T: DeserializeSeed<'de> + Copy> DeserializeSeed<'de> for LenientList<T> {
    type Value = (Vec<T::Value>, bool);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: DeserializeSeed<'de> + Copy> Visitor<'de> for LenientList<T> {
    type Value = (Vec<T::Value>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < self.max {
            match seq.next_element_seed(self.of)? {
                Some(element) => kept.push(element),
                None => return Ok((kept, true)),
            }
        }
        let mut complete = true;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            complete = false;
        }
        Ok((kept, complete))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_map(map).map(|_| (Vec::new(), false))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok((Vec::new(), true))
    }

    visit_alike!((Vec::new(), false); visit_bool(bool), visit_u64(u64), visit_i64(i64), visit_f64(f64), visit_str(&str));
}

/// A [`Field`].
#[derive(Clone, Copy)]
struct Scalar;

impl<'de> DeserializeSeed<'de> for Scalar {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scalar {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Field, E> {
        Ok(Field::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Field, E> {
        Ok(Field::Number(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Field, E> {
        let end = value.floor_char_boundary(TEXT_MAX);
        Ok(Field::Text(value.get(..end).unwrap_or_default().to_owned()))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Field, E> {
        Ok(Field::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Field, A::Error> {
        IgnoredAny.visit_seq(seq).map(|_| Field::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Field, A::Error> {
        IgnoredAny.visit_map(map).map(|_| Field::Other)
    }

    visit_alike!(Field::Other; visit_i64(i64), visit_f64(f64));
}
