/*
 * The smallest useful recgate plugin: one medium, in memory. It needs nothing but the header:
 *
 *     cc -std=c11 -shared -fPIC -I plugin-api/include -o libminimal.so plugins/examples/minimal-c/minimal.c
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "recgate_plugin.h"

/* A literal as rg_str. */
#define TEXT(literal) ((rg_str){(literal), sizeof(literal) - 1})

static const char CONTENT[] = "Hello from a plugin in C.";
#define SIZE (sizeof CONTENT - 1)
#define ID "hello.txt"
#define VERSION "1"

/* The host lives for ever, so it may be kept. */
static const rg_host *host;

/* Both types are the plugin's own. This one keeps nothing in a handle. */
struct rg_instance {
    int64_t changed_ms;
};
struct rg_handle {
    int nothing;
};

static int32_t fail(rg_error *error, int32_t code, const char *message) {
    error->code = code;
    int length = snprintf(error->message, RG_ERROR_MESSAGE_MAX, "%s", message);
    error->message_len = length < 0 ? 0 : (uint32_t)length;
    return code;
}

static int is(rg_str text, const char *wanted) {
    return text.len == strlen(wanted) && memcmp(text.ptr, wanted, text.len) == 0;
}

static int32_t tell(const rg_instance *instance, rg_emit_item emit, void *emit_ctx) {
    const rg_key key = {.kind = RG_KEY_OBJECT_KEY, .value = TEXT(ID)};
    const rg_media media = {
        .struct_size = sizeof media,
        .state = RG_STATE_AVAILABLE,
        .id = TEXT(ID),
        .version = TEXT(VERSION),
        .size = SIZE,
        .media_type = TEXT("text/plain"),
        .start_ms = INT64_C(1465171277000),
        .changed_ms = instance->changed_ms,
        .start_precision = RG_PRECISION_SECOND,
        .present = RG_MEDIA_HAS_START,
        .keys = &key,
        .key_count = 1,
    };
    const rg_item item = {.struct_size = sizeof item, .kind = RG_ITEM_MEDIA, .media = &media};
    return emit(emit_ctx, &item);
}

static int32_t config_schema(rg_emit_text emit, void *emit_ctx, rg_error *error) {
    (void)error;
    return emit(emit_ctx, TEXT("{\"type\":\"object\",\"additionalProperties\":false}"));
}

static int32_t create(rg_str config_json, rg_instance **out, rg_error *error) {
    (void)config_json;
    rg_instance *instance = malloc(sizeof *instance);
    if (instance == NULL) {
        return fail(error, RG_E_INTERNAL, "out of memory");
    }
    instance->changed_ms = INT64_C(1465171300000);
    host->log(host->ctx, RG_LOG_INFO, TEXT("minimal"), TEXT("made an instance"));
    *out = instance;
    return RG_OK;
}

static void destroy(rg_instance *instance) {
    free(instance);
}

static int32_t capabilities(rg_instance *instance, rg_capabilities *out, rg_error *error) {
    (void)instance;
    (void)out; /* zeroed: no capabilities, limits left to the host */
    (void)error;
    return RG_OK;
}

static int32_t health(rg_instance *instance, const rg_call *call, rg_health *out, rg_error *error) {
    (void)instance;
    (void)call;
    (void)error;
    out->reachable = 1;
    return RG_OK;
}

static int32_t scan(rg_instance *instance, const rg_call *call, const rg_scan_from *from, rg_emit_item emit,
                    void *emit_ctx, rg_scan_end *out, rg_error *error) {
    (void)from; /* with one medium, everything is told every time */
    (void)error;
    if (call->is_cancelled(call->ctx)) {
        return RG_E_CANCELLED;
    }
    int32_t stopped = tell(instance, emit, emit_ctx);
    if (stopped != RG_OK) {
        return stopped;
    }
    out->complete = RG_SCAN_COMPLETE;
    out->watermark_ms = host->now_ms(host->ctx);
    return RG_OK;
}

static int32_t stat_medium(rg_instance *instance, const rg_call *call, rg_str id, rg_str version, rg_emit_item emit,
                           void *emit_ctx, rg_error *error) {
    (void)call;
    if (!is(id, ID)) {
        return fail(error, RG_E_NOT_FOUND, "there is one medium only: " ID);
    }
    if (version.len != 0 && !is(version, VERSION)) {
        return fail(error, RG_E_PRECONDITION, "the version is " VERSION);
    }
    return tell(instance, emit, emit_ctx);
}

static int32_t open_medium(rg_instance *instance, const rg_call *call, rg_str id, rg_str version, rg_handle **out,
                           rg_error *error) {
    (void)instance;
    (void)call;
    if (!is(id, ID)) {
        return fail(error, RG_E_NOT_FOUND, "there is one medium only: " ID);
    }
    if (!is(version, VERSION)) {
        return fail(error, RG_E_PRECONDITION, "the version is " VERSION);
    }
    rg_handle *handle = malloc(sizeof *handle);
    if (handle == NULL) {
        return fail(error, RG_E_INTERNAL, "out of memory");
    }
    *out = handle;
    return RG_OK;
}

static int32_t read_at(rg_instance *instance, const rg_call *call, rg_handle *handle, uint64_t offset, uint8_t *buf,
                       uint64_t len, uint64_t *got, rg_error *error) {
    (void)instance;
    (void)call;
    (void)handle;
    (void)error;
    uint64_t left = offset < SIZE ? SIZE - offset : 0;
    *got = len < left ? len : left;
    if (*got > 0) {
        memcpy(buf, CONTENT + offset, *got);
    }
    return RG_OK;
}

static void close_medium(rg_instance *instance, rg_handle *handle) {
    (void)instance;
    free(handle);
}

RG_EXPORT const rg_descriptor rg_plugin_descriptor = {
    .magic = RG_DESCRIPTOR_MAGIC,
    .struct_size = sizeof(rg_descriptor),
    .abi_major = RG_ABI_MAJOR,
    .abi_minor = RG_ABI_MINOR,
    .name = "minimal",
    .version = "0.1.0",
    .licence = "Apache-2.0",
};

RG_EXPORT int32_t rg_plugin_init(const rg_host *given, rg_plugin *out, rg_error *error) {
    const rg_plugin table = {
        .struct_size = sizeof table,
        .config_schema = config_schema,
        .create = create,
        .destroy = destroy,
        .capabilities = capabilities,
        .health = health,
        .scan = scan,
        .stat = stat_medium,
        .open = open_medium,
        .read_at = read_at,
        .close = close_medium,
    };
    /* A host of a later version may give more room, one of an earlier version less. */
    uint32_t room = out->struct_size < sizeof table ? out->struct_size : (uint32_t)sizeof table;
    if (room < offsetof(rg_plugin, close) + sizeof table.close) {
        return fail(error, RG_E_UNSUPPORTED, "the host's table is too short");
    }
    memcpy(out, &table, room);
    out->struct_size = room;
    host = given;
    return RG_OK;
}
