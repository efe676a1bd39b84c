//! Pickle instructions: their codes, by the names of Python's `pickletools`.

#![allow(missing_docs)] // the names are the documentation

pub const ADDITEMS: u8 = 0x90;
pub const APPEND: u8 = b'a';
pub const APPENDS: u8 = b'e';
pub const BINBYTES8: u8 = 0x8e;
pub const BINBYTES: u8 = b'B';
pub const BINFLOAT: u8 = b'G';
pub const BINGET: u8 = b'h';
pub const BININT1: u8 = b'K';
pub const BININT2: u8 = b'M';
pub const BININT: u8 = b'J';
pub const BINPERSID: u8 = b'Q';
pub const BINPUT: u8 = b'q';
pub const BINSTRING: u8 = b'T';
pub const BINUNICODE8: u8 = 0x8d;
pub const BINUNICODE: u8 = b'X';
pub const BUILD: u8 = b'b';
pub const BYTEARRAY8: u8 = 0x96;
pub const DICT: u8 = b'd';
pub const EMPTY_DICT: u8 = b'}';
pub const EMPTY_LIST: u8 = b']';
pub const EMPTY_SET: u8 = 0x8f;
pub const EMPTY_TUPLE: u8 = b')';
pub const FLOAT: u8 = b'F';
pub const FRAME: u8 = 0x95;
pub const FROZENSET: u8 = 0x91;
pub const GET: u8 = b'g';
pub const GLOBAL: u8 = b'c';
pub const INT: u8 = b'I';
pub const LIST: u8 = b'l';
pub const LONG1: u8 = 0x8a;
pub const LONG: u8 = b'L';
pub const LONG_BINGET: u8 = b'j';
pub const LONG_BINPUT: u8 = b'r';
pub const MARK: u8 = b'(';
pub const MEMOIZE: u8 = 0x94;
pub const NEWFALSE: u8 = 0x89;
pub const NEWOBJ: u8 = 0x81;
pub const NEWTRUE: u8 = 0x88;
pub const NONE: u8 = b'N';
pub const POP: u8 = b'0';
pub const POP_MARK: u8 = b'1';
pub const PROTO: u8 = 0x80;
pub const PUT: u8 = b'p';
pub const REDUCE: u8 = b'R';
pub const SETITEM: u8 = b's';
pub const SETITEMS: u8 = b'u';
pub const SHORT_BINBYTES: u8 = b'C';
pub const SHORT_BINSTRING: u8 = b'U';
pub const SHORT_BINUNICODE: u8 = 0x8c;
pub const STACK_GLOBAL: u8 = 0x93;
pub const STOP: u8 = b'.';
pub const STRING: u8 = b'S';
pub const TUPLE1: u8 = 0x85;
pub const TUPLE2: u8 = 0x86;
pub const TUPLE3: u8 = 0x87;
pub const TUPLE: u8 = b't';
pub const UNICODE: u8 = b'V';

/// What Python's documentation calls an instruction that is not read here.
pub fn name(opcode: u8) -> &'static str {
    match opcode {
        b'2' => "DUP",
        b'F' => "FLOAT",
        b'G' => "BINFLOAT",
        b'P' => "PERSID",
        b'Q' => "BINPERSID",
        b'd' => "DICT",
        b'}' => "EMPTY_DICT",
        b'i' => "INST",
        b'o' => "OBJ",
        b's' => "SETITEM",
        b'u' => "SETITEMS",
        0x81 => "NEWOBJ",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x8b => "LONG4",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => "unknown",
    }
}
