/*
 * recgate_plugin.h - the contract between recgate and its storage plugins, version 0.2.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A plugin is a shared library that exports two symbols:
 *
 *     RG_EXPORT const rg_descriptor rg_plugin_descriptor = { ... };
 *     RG_EXPORT int32_t rg_plugin_init(const rg_host *host, rg_plugin *out, rg_error *error);
 *
 * The gateway reads the descriptor from the file without running anything of it, checks it, loads the library, calls
 * rg_plugin_init once, and from then on calls the functions of the table. A library is never unloaded.
 *
 * SIZES. Every struct begins with its own struct_size (the descriptor has its magic before it). Fields are only ever
 * appended, so whoever reads a struct takes the smaller of its own sizeof and the given struct_size; what the given
 * one is too short for counts as zero. A struct that is smaller than it was in version 0.1 is refused. Whoever hands
 * over a struct to be filled ("out") sets its struct_size before the call; who fills it writes no byte beyond that.
 * Four small types lie by value and in arrays and have no struct_size: rg_str, rg_bytes, rg_key and rg_pair never
 * change within a major version. The ABI is for 64-bit platforms.
 *
 * TEXT is UTF-8, a pointer and a length in bytes, never NUL-terminated. A pointer may be NULL where the length is 0.
 * The descriptor alone holds its texts in arrays, so that they can be read from the file.
 *
 * MEMORY. Nothing that one side has allocated is freed by the other. What a callback (rg_emit_item, rg_emit_text) is
 * given lives for that call; what a function is given lives until that function returns, `host` alone lives for ever.
 *
 * RESULTS. A function returns 0 or one of RG_E_*. On an error it also fills `error`. The returned value decides.
 *
 * THREADS. Functions that take an instance are called from any thread, several at once; create and destroy never run
 * beside other calls of that instance, close never beside other calls on that handle. Calls block. The gateway has a
 * deadline for each: past it, is_cancelled tells 1, and the caller has gone. A plugin leaves signals, the working
 * directory, the environment, the locale and the standard streams alone; it takes the time from host->now_ms.
 *
 * PANICS, exceptions and longjmp must not cross the boundary. A plugin catches them and returns RG_E_PANIC.
 */
#ifndef RECGATE_PLUGIN_H
#define RECGATE_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if UINTPTR_MAX != UINT64_MAX
#error "the recgate plugin ABI is for 64-bit platforms"
#endif

/* The version of this header. The major must match that of the gateway; of the minors the smaller one counts. */
#define RG_ABI_MAJOR UINT32_C(0)
#define RG_ABI_MINOR UINT32_C(2)

/* First field of the descriptor: "RECGATE" and a zero byte, on a little-endian machine. */
#define RG_DESCRIPTOR_MAGIC UINT64_C(0x0045544147434552)

/* Puts a symbol into the library's dynamic table, even under -fvisibility=hidden. */
#if defined(__GNUC__) || defined(__clang__)
#define RG_EXPORT __attribute__((visibility("default")))
#else
#define RG_EXPORT
#endif

/* ------------------------------------------------------------------------------------------------ results */

#define RG_OK INT32_C(0)
/* There is no such medium. */
#define RG_E_NOT_FOUND INT32_C(1)
/* The storage refuses access. */
#define RG_E_PERMISSION INT32_C(2)
/* Under retention at the storage. */
#define RG_E_LOCKED_RETENTION INT32_C(3)
/* Under legal hold at the storage. */
#define RG_E_LOCKED_HOLD INT32_C(4)
/* The medium has another version by now. */
#define RG_E_PRECONDITION INT32_C(5)
/* An offset beyond the end. */
#define RG_E_RANGE INT32_C(6)
/* A bad argument or configuration. */
#define RG_E_INVALID INT32_C(7)
/* The plugin or its storage can't do this. */
#define RG_E_UNSUPPORTED INT32_C(8)
/* Larger than the storage takes. */
#define RG_E_TOO_LARGE INT32_C(9)
/* The storage is full. */
#define RG_E_NO_SPACE INT32_C(10)
/* In use by somebody else; may be retried. */
#define RG_E_BUSY INT32_C(11)
/* Asked too often; may be retried after retry_after_ms. */
#define RG_E_RATE_LIMITED INT32_C(12)
/* The storage can't be reached; may be retried. */
#define RG_E_UNAVAILABLE INT32_C(13)
/* Took too long; may be retried. */
#define RG_E_TIMEOUT INT32_C(14)
/* The host has cancelled the call. */
#define RG_E_CANCELLED INT32_C(15)
/* The stored bytes are damaged. */
#define RG_E_CORRUPT INT32_C(16)
/* In colder storage; has to be restored first. */
#define RG_E_ARCHIVED INT32_C(17)
/* A defect of the plugin. */
#define RG_E_INTERNAL INT32_C(18)
/* The plugin panicked, or caught an exception that it didn't expect. */
#define RG_E_PANIC INT32_C(19)

/* ------------------------------------------------------------------------------------------------ small types */

/* Text: UTF-8, len bytes. */
typedef struct rg_str {
    const char *ptr;
    uint64_t len;
} rg_str;

/* Bytes. */
typedef struct rg_bytes {
    const uint8_t *ptr;
    uint64_t len;
} rg_bytes;

/* Kinds of join keys, strongest first. */
#define RG_KEY_RECORDING_UUID UINT32_C(1)  /* the recording's own uuid */
#define RG_KEY_OBJECT_KEY UINT32_C(2)      /* the object's key or path in the storage */
#define RG_KEY_CONTACT_ID UINT32_C(3)      /* the contact; several media may share it */
#define RG_KEY_CONVERSATION_ID UINT32_C(4) /* the conversation; several media may share it */

/*
 * A key that media and facts have in common. Facts belong to every medium of the same source that has one of their
 * keys, the same kind and the same value; neither has to come first, and keys may change. Where several facts belong to
 * a medium, each value is taken from those that have it and are joined by the strongest kind; among these, from the
 * greatest revision. At most 64 media and 64 facts share one key: what is more is left out and reported.
 */
typedef struct rg_key {
    uint32_t kind;     /* RG_KEY_* */
    uint32_t reserved; /* 0 */
    rg_str value;      /* 1 to 1024 bytes, compared byte for byte */
} rg_key;

/* A fact: a key (1 to 128 bytes) and its value (at most 8192 bytes). */
typedef struct rg_pair {
    rg_str key;
    rg_str value;
} rg_pair;

/* What went wrong; the host hands it over zeroed, with struct_size set. */
#define RG_ERROR_MESSAGE_MAX 1000
typedef struct rg_error {
    uint32_t struct_size;
    int32_t code;            /* the same RG_E_* that the function returns */
    uint64_t retry_after_ms; /* milliseconds after which a retry makes sense; 0 where unknown */
    uint32_t message_len;    /* bytes used in message */
    uint32_t reserved;       /* 0 */
    char message[RG_ERROR_MESSAGE_MAX]; /* for the operator: what, where, what to do. UTF-8, no secrets */
} rg_error;

/* ------------------------------------------------------------------------------------------------ descriptor */

#define RG_NAME_MAX 32
#define RG_VERSION_MAX 32
#define RG_LICENCE_MAX 64

/*
 * What the plugin is. Constant data that needs no relocation: the gateway reads it from the file. Texts are filled up
 * with zero bytes; in C: .name = "mine".
 */
typedef struct rg_descriptor {
    uint64_t magic;       /* RG_DESCRIPTOR_MAGIC */
    uint32_t struct_size; /* sizeof(rg_descriptor) */
    uint32_t abi_major;   /* RG_ABI_MAJOR */
    uint32_t abi_minor;   /* RG_ABI_MINOR */
    uint32_t reserved;    /* 0 */
    char name[RG_NAME_MAX];       /* as configurations spell it: [a-z][a-z0-9_-]{0,31} */
    char version[RG_VERSION_MAX]; /* of the plugin; printable ASCII */
    char licence[RG_LICENCE_MAX]; /* SPDX licence expression; printable ASCII */
} rg_descriptor;

/* ------------------------------------------------------------------------------------------------ the host */

#define RG_LOG_ERROR UINT32_C(1) /* something failed */
#define RG_LOG_WARN UINT32_C(2)  /* something is odd but handled */
#define RG_LOG_INFO UINT32_C(3)  /* what an operator wants to know */
#define RG_LOG_DEBUG UINT32_C(4) /* what a developer wants to know */
#define RG_LOG_TRACE UINT32_C(5) /* every step */

/* What the gateway offers. The pointer given to rg_plugin_init may be kept; its functions may be called from any
 * thread at any time. */
typedef struct rg_host {
    uint32_t struct_size;
    uint32_t abi_minor; /* the effective minor: the smaller of the two */
    void *ctx;          /* first argument of the functions below */
    /* Writes a line to the gateway's log. Long lines are cut, too many are dropped and counted. No secrets. */
    void (*log)(void *ctx, uint32_t level, rg_str target, rg_str message);
    /* The gateway's time, Unix milliseconds UTC. */
    int64_t (*now_ms)(void *ctx);
} rg_host;

/* What the gateway offers for one call; lives until the function returns. */
typedef struct rg_call {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */
    void *ctx;         /* argument of is_cancelled */
    /* 1 when the gateway wants this call to end, else 0: look between steps, return RG_E_CANCELLED. */
    uint32_t (*is_cancelled)(void *ctx);
} rg_call;

/* ------------------------------------------------------------------------------------------------ what is told */

/* How exact rg_media.start_ms is. */
#define RG_PRECISION_UNKNOWN UINT32_C(0)
#define RG_PRECISION_DAY UINT32_C(1)
#define RG_PRECISION_MINUTE UINT32_C(2)
#define RG_PRECISION_SECOND UINT32_C(3) /* to the second or better: exact enough for a name */

/* Whether a medium can be read. */
#define RG_STATE_AVAILABLE UINT32_C(0) /* complete and readable */
#define RG_STATE_GROWING UINT32_C(1)   /* still being written */
#define RG_STATE_UPLOADING UINT32_C(2) /* on its way into the storage */
#define RG_STATE_ARCHIVED UINT32_C(3)  /* in colder storage, to be restored first */
#define RG_STATE_FAILED UINT32_C(4)    /* its processing failed; state_reason says why */

/* Bits of rg_media.present: which optional fields count. */
#define RG_MEDIA_HAS_START UINT32_C(0x01)
#define RG_MEDIA_HAS_STOP UINT32_C(0x02)
#define RG_MEDIA_HAS_DURATION UINT32_C(0x04)
#define RG_MEDIA_HAS_UID UINT32_C(0x08)
#define RG_MEDIA_HAS_PREFERRED_NAME UINT32_C(0x10)

/* Limits; an item beyond them is dropped and reported. */
#define RG_ID_MAX 1024             /* bytes of an id, a version, the value of a join key */
#define RG_PREFERRED_NAME_MAX 255  /* bytes of a preferred name */
#define RG_HEADER_PATCH_MAX 4096   /* bytes of a header patch */
#define RG_KEYS_MAX 64             /* join keys of one item */
#define RG_VALUES_MAX 256          /* facts of one item */
#define RG_VALUE_KEY_MAX 128       /* bytes of the key of a fact */
#define RG_VALUE_MAX 8192          /* bytes of the value of a fact */
#define RG_CURSOR_MAX 4096         /* bytes of a cursor */

/* One medium as the storage has it now. Times are Unix milliseconds UTC, in the years 1970 to 9999. */
typedef struct rg_media {
    uint32_t struct_size;
    uint32_t state;        /* RG_STATE_* */
    rg_str id;             /* stable and unique in the source, in one spelling; 1 to 1024 bytes, no control characters.
                              A medium that comes back under its old id is the same recording, with its old name */
    rg_str version;        /* which content this is; two reads of one id and version return the same bytes. Text like an
                              id. A recording that is published keeps to its version: told with another one, it is
                              served no longer */
    uint64_t size;         /* bytes as stored, which are as many as are served */
    rg_str media_type;     /* IANA media type, for example audio/wav; at most 255 bytes */
    int64_t start_ms;      /* start of the recording, as far as the storage knows it */
    int64_t stop_ms;       /* end of the recording */
    int64_t changed_ms;    /* when the content last changed; always given. The wait for facts begins here */
    uint64_t duration_ms;  /* length of the audio, counted from its samples */
    uint32_t start_precision; /* RG_PRECISION_* */
    uint32_t present;      /* RG_MEDIA_HAS_* */
    rg_str state_reason;   /* why, with RG_STATE_FAILED; else empty */
    uint8_t uid[16];       /* the gateway's uid (UUIDv7), where the storage keeps one */
    rg_str preferred_name; /* the name it had in an earlier archive (R201606060001170000.wav, R20160606000117.wav), kept
                              where no recording of the tenant has had it, if it tells the second (UTC) of start_ms,
                              exact to the second, or of started_at in the facts. With such a start_ms the medium is
                              published under it without facts, after the wait for them. Once it has a name, this is
                              not looked at any more */
    rg_bytes header_patch; /* bytes served in place of the first ones stored; never changes the length */
    const rg_key *keys;    /* keys by which facts find this medium */
    uint64_t key_count;
} rg_media;

/*
 * What is known about a recording, apart from its medium. Told before the medium, after it, or again.
 *
 * Keys of values that the gateway uses, each at most once; others are kept and shown:
 *
 *   started_at           start of the recording, Unix milliseconds UTC in decimal. Exact: the name is made of it, and a
 *                        medium that is available is published as soon as its facts have it
 *   stopped_at           its end, in the same way
 *   duration_ms          length in decimal milliseconds, where the medium doesn't tell its own
 *   call_type            inbound, outbound or direct_agent_access
 *   agent_name           full name of the agent
 *   customer_number      the customer's telephone number
 *   phone_channel        number or trunk over which the call came in
 *   called_number        number that was dialled, on outbound calls
 *   case_id              the case, digits only
 *   account              the customer's account
 *   queue_type           inbound or outbound, of calls that went through a queue
 *   queue_name           name of the queue
 *   transaction_id       the call's id at its source
 *   external_variable_1  first free column
 *   external_variable_2  second free column
 *   outdial_code         code that the agent chose before an outbound call
 *   wrap_up_code         code that the agent chose after the call
 *
 * A correction is told with the same id and a revision that isn't smaller, and replaces all keys and values. Facts that
 * a scan doesn't tell any more stay as they were: what the source takes back is told with gone, the same id and again
 * a revision that isn't smaller. None of that changes the name of a recording that is published.
 */
typedef struct rg_facts {
    uint32_t struct_size;
    uint32_t gone;     /* 1: the source has withdrawn these facts (the values don't count then); else 0 */
    rg_str id;         /* stable and unique in the source; 1 to 1024 bytes, no control characters */
    uint64_t revision; /* the greater one wins among facts of one id, whenever it comes; of the same one, the last that
                           is told, and that two differ is reported. A counter or a time of the source; 0 where it has
                           neither */
    const rg_key *keys;
    uint64_t key_count;
    const rg_pair *values;
    uint64_t value_count;
} rg_facts;

#define RG_ITEM_MEDIA UINT32_C(1)      /* a medium is there: `media` */
#define RG_ITEM_MEDIA_GONE UINT32_C(2) /* the medium of this id is gone: `gone_id`; a hint, the host asks stat */
#define RG_ITEM_FACTS UINT32_C(3)      /* facts or their withdrawal: `facts` */
/* Since 0.2, in watch alone: from here on nothing is missed. The host scans after it, for what came before. Nothing but
 * kind is looked at. */
#define RG_ITEM_LISTENING UINT32_C(4)

/* One thing that a plugin tells. */
typedef struct rg_item {
    uint32_t struct_size;
    uint32_t kind; /* RG_ITEM_* */
    const rg_media *media;
    rg_str gone_id;
    const rg_facts *facts;
} rg_item;

/* Takes one item. Anything but RG_OK means: stop, and return that value. */
typedef int32_t (*rg_emit_item)(void *emit_ctx, const rg_item *item);

/* Takes a text, whole, once. Anything but RG_OK means: stop, and return that value. */
typedef int32_t (*rg_emit_text)(void *emit_ctx, rg_str text);

#define RG_SCAN_FULL UINT32_C(1)  /* tell everything */
#define RG_SCAN_SINCE UINT32_C(2) /* tell at least what has changed since cursor, or go on after RG_SCAN_MORE */

/* Where a scan begins. */
typedef struct rg_scan_from {
    uint32_t struct_size;
    uint32_t kind; /* RG_SCAN_* */
    rg_bytes cursor;
} rg_scan_from;

#define RG_SCAN_MORE UINT32_C(0)     /* the host calls again with the cursor */
#define RG_SCAN_COMPLETE UINT32_C(1) /* all was told */

/* rg_scan_end.watermark_ms of a plugin that can't tell. */
#define RG_WATERMARK_UNKNOWN INT64_MIN

/* How a call of scan ended (out). */
typedef struct rg_scan_end {
    uint32_t struct_size;
    uint32_t complete;    /* RG_SCAN_MORE or RG_SCAN_COMPLETE */
    int64_t watermark_ms; /* nothing of a recording that started before this is still untold */
    uint32_t cursor_len;  /* bytes used in cursor */
    uint32_t reserved;    /* 0 */
    uint8_t cursor[RG_CURSOR_MAX]; /* opaque; survives restarts of gateway and plugin */
} rg_scan_end;

/* Bits of rg_capabilities.bits. A bit that the effective minor (host->abi_minor) doesn't name is refused, and so is one
 * whose function is NULL. */
#define RG_CAP_FACTS UINT64_C(0x01) /* scans tell facts, not only media */
#define RG_CAP_WATCH UINT64_C(0x02) /* since 0.2: watch */

/* What an instance can do (out). */
typedef struct rg_capabilities {
    uint32_t struct_size;
    uint32_t max_concurrent_calls; /* how many calls may run at once; 0 leaves it to the host */
    uint64_t bits;                 /* RG_CAP_* */
    uint32_t preferred_read_size;  /* bytes; 0 leaves it to the host */
    uint32_t reserved;             /* 0 */
} rg_capabilities;

#define RG_HEALTH_MESSAGE_MAX 1000

/* Bits of rg_health.present. */
#define RG_HEALTH_HAS_STORAGE_TIME UINT32_C(0x01)

/* How an instance is (out). A storage that can't be reached is a health, not an error. */
typedef struct rg_health {
    uint32_t struct_size;
    uint32_t reachable;      /* 1: the storage answers; else 0 */
    uint32_t present;        /* RG_HEALTH_HAS_* */
    uint32_t message_len;    /* bytes used in message */
    int64_t storage_time_ms; /* the storage's own clock, Unix milliseconds UTC */
    char message[RG_HEALTH_MESSAGE_MAX]; /* what is wrong and what to do; empty where nothing is */
} rg_health;

/* ------------------------------------------------------------------------------------------------ the table */

typedef struct rg_instance rg_instance; /* one configured source; the plugin's own type */
typedef struct rg_handle rg_handle;     /* one open medium; the plugin's own type */

/* The plugin's functions (out of rg_plugin_init). All up to close are needed; those after it may be NULL. Later versions
 * append optional ones. */
typedef struct rg_plugin {
    uint32_t struct_size;
    uint32_t reserved; /* 0 */

    /* Hands over the JSON Schema of the configuration. Called before any instance exists. A property that is a number of
     * seconds which may pass within one call without a sign of life says how many times they may, for example with
     * "x-recgate-times-in-call-timeout": 2; the host refuses settings that would outlast its own patience. */
    int32_t (*config_schema)(rg_emit_text emit, void *emit_ctx, rg_error *error);

    /* Makes an instance from its configuration, JSON that satisfies the schema. *out is set only with RG_OK. */
    int32_t (*create)(rg_str config_json, rg_instance **out, rg_error *error);

    /* Ends an instance. No call of it is running, no handle of it is open. */
    void (*destroy)(rg_instance *instance);

    /* What this instance can do. Doesn't change while the instance lives. */
    int32_t (*capabilities)(rg_instance *instance, rg_capabilities *out, rg_error *error);

    /* How it is. */
    int32_t (*health)(rg_instance *instance, const rg_call *call, rg_health *out, rg_error *error);

    /*
     * Tells media and facts through emit, in any order, then fills out. The deadline counts from the last emit. After
     * RG_SCAN_MORE the host calls again with the cursor; no two scans of an instance run at once.
     *
     * A full scan that has ended with RG_SCAN_COMPLETE is where the host learns what is missing: it asks stat for each
     * medium that was not told, and RG_E_NOT_FOUND makes it missing; where many are at once, none is. So
     * RG_SCAN_COMPLETE is for storages that could be looked through: one that is away is an error (RG_E_UNAVAILABLE),
     * not an empty storage, and a medium that can't be read just now is another error of stat.
     *
     * The index of a day waits for the watermark to pass the day's end, and is published incomplete without it.
     */
    int32_t (*scan)(rg_instance *instance, const rg_call *call, const rg_scan_from *from, rg_emit_item emit,
                    void *emit_ctx, rg_scan_end *out, rg_error *error);

    /* Tells one medium as it is now: one RG_ITEM_MEDIA through emit. version is empty for whatever there is, else
     * RG_E_PRECONDITION where the medium has another one by now. */
    int32_t (*stat)(rg_instance *instance, const rg_call *call, rg_str id, rg_str version, rg_emit_item emit,
                    void *emit_ctx, rg_error *error);

    /* Opens exactly this version; RG_E_PRECONDITION where it is another by now. *out is set only with RG_OK. */
    int32_t (*open)(rg_instance *instance, const rg_call *call, rg_str id, rg_str version, rg_handle **out,
                    rg_error *error);

    /* Reads stored bytes (unpatched) from offset into buf, like pread: at once on one handle, short only at the end
     * of the medium. *got is the number of bytes read, never more than len; 0 at the end. */
    int32_t (*read_at)(rg_instance *instance, const rg_call *call, rg_handle *handle, uint64_t offset, uint8_t *buf,
                       uint64_t len, uint64_t *got, rg_error *error);

    /* Closes a handle. */
    void (*close)(rg_instance *instance, rg_handle *handle);

    /*
     * Since 0.2, with RG_CAP_WATCH: tells media, media that are gone and facts through emit as it happens, each as it
     * is then, and returns RG_E_CANCELLED soon after is_cancelled tells 1 (a look each 200 ms is soon). It has a thread
     * of its own and no deadline, and runs beside the instance's other calls, scans among them; a second one begins
     * when the first has returned, or has been given up because it doesn't although it was cancelled. emit blocks while
     * the host is busy.
     *
     * It tells RG_ITEM_LISTENING when it has begun to listen, and again whenever it may have missed something (a queue
     * of events that has run over, a connection that was lost for a while): the host scans after each. So it needn't
     * tell what was there before. It begins to listen first and tells RG_ITEM_LISTENING then: in the other order, what
     * comes between the two is missed until the next scan. Where it doesn't say so within 10 seconds, a scan follows
     * anyway.
     *
     * What it tells is otherwise like what scan tells, but that a medium is gone is a hint: the host asks (stat, scan)
     * before it believes that. The order counts: of several items about one medium the last one holds, also against
     * those of a scan that began earlier. A medium that goes on being written is told as RG_STATE_GROWING before any
     * facts with started_at that come meanwhile, for those let what is available be published.
     *
     * A storage that announces nothing may be polled here. RG_E_UNSUPPORTED says that this instance can't be watched:
     * the host leaves it at scans. After any other return the host calls it again, after pauses that grow (from a
     * second to five minutes, at least retry_after_ms).
     */
    int32_t (*watch)(rg_instance *instance, const rg_call *call, rg_emit_item emit, void *emit_ctx, rg_error *error);
} rg_plugin;

/* ------------------------------------------------------------------------------------------------ the symbols */

/* Exported by the plugin. */
extern RG_EXPORT const rg_descriptor rg_plugin_descriptor;

/* Exported by the plugin: takes the host, fills the table. Called once. out is zeroed, with struct_size set to what
 * the host knows; the plugin sets it to the smaller of that and its own sizeof. */
RG_EXPORT int32_t rg_plugin_init(const rg_host *host, rg_plugin *out, rg_error *error);

#ifdef __cplusplus
}
#endif

#endif /* RECGATE_PLUGIN_H */
