//! Messages by their fields (RFC 4251, 5).

/// A message that is being written, right or wrong.
#[derive(Debug, Clone)]
pub struct Message(pub Vec<u8>);

impl Message {
    /// One that begins with its number.
    pub fn new(number: u8) -> Self {
        Self(vec![number])
    }

    /// One byte, or a boolean.
    pub fn byte(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    /// Four bytes.
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Eight bytes.
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// A length and that many bytes. Also a list of names.
    pub fn string(self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let length = u32::try_from(bytes.len()).unwrap();
        self.u32(length).raw(bytes)
    }

    /// A positive number of any size, from its big-endian bytes.
    pub fn mpint(self, bytes: &[u8]) -> Self {
        let digits = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        let sign: &[u8] = if digits.first().is_some_and(|byte| byte & 0x80 != 0) { &[0] } else { &[] };
        self.string([sign, digits].concat())
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend(bytes.as_ref());
        self
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The number of a message.
pub fn number(message: &[u8]) -> u8 {
    message.first().copied().expect("an empty message")
}

/// The fields of a message from the server, which are right or the test fails.
#[derive(Debug)]
pub struct Parts<'a>(pub &'a [u8]);

impl<'a> Parts<'a> {
    /// Those after the message's number, or after another byte.
    pub fn after_number(message: &'a [u8]) -> Self {
        Self(&message[1..])
    }

    /// This many bytes.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (field, rest) = self.0.split_at_checked(length).expect("a message is shorter than its fields");
        self.0 = rest;
        field
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.take(8).try_into().unwrap())
    }

    /// A length and that many bytes.
    pub fn string(&mut self) -> &'a [u8] {
        let length = usize::try_from(self.u32()).unwrap();
        self.take(length)
    }

    /// The same as text.
    pub fn text(&mut self) -> String {
        String::from_utf8(self.string().to_vec()).expect("text that is not UTF-8")
    }
}
