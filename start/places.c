/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Places for monitors: see places.h.  The short forms become the keys of -chardev, so that both are
 * judged in one place.
 */
#include "start/places.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/keyval.h"
#include "core/mem.h"

const char *const place_backends[] = { "file", "null", "socket", "stdio", NULL };

/* Keys that QEMU knows, for every backend. */
static const char *const switches[] = {
    "server", "wait", "telnet", "nodelay", "delay", "ipv4", "ipv6", "append", "signal", "mux", "logappend",
    "abstract", "tight", "tn3270", "websocket", NULL,
};
static const char *const texts[] = {
    "backend", "id", "path", "host", "port", "to", "reconnect", "logfile", "localaddr", "localport", "input-path",
    "fd", "width", "height", "cols", "rows", "name", "debug", "size", "chardev", "tls-creds", "tls-authz", NULL,
};
/* Those that ask for something that we do not do. */
static const char *const missing[] = { "abstract", "tn3270", "websocket", "tls-creds", "tls-authz", "fd", "reconnect",
                                       "logfile", NULL };

static bool is_one_of(const char *const *list, const char *word)
{
    for (; *list; list++) {
        if (!strcmp(*list, word)) {
            return true;
        }
    }
    return false;
}

static const char *text_of(json_t *keys, const char *key)
{
    return json_string_value(json_object_get(keys, key));
}

static bool on(json_t *keys, const char *key, bool fallback)
{
    const char *text = text_of(keys, key);

    if (text) {
        keyval_switch(text, &fallback);
    }
    return fallback;
}

static int check_keys(json_t *keys, struct error *err)
{
    const char *key;
    json_t *value;
    bool is_on;

    json_object_foreach(keys, key, value) {
        if (is_one_of(switches, key)) {
            if (keyval_switch(json_string_value(value), &is_on) < 0) {
                error_set(err, "Parameter '%s' expects 'on' or 'off'", key);
                return -EINVAL;
            }
        } else if (!is_one_of(texts, key)) {
            error_set(err, "Invalid parameter '%s'", key);
            return -EINVAL;
        }
    }
    return 0;
}

static int check_missing(json_t *keys, struct error *err)
{
    for (const char *const *key = missing; *key; key++) {
        if (text_of(keys, *key) && (!is_one_of(switches, *key) || on(keys, *key, false))) {
            error_set(err, "chardev: socket: '%s' is not supported by merganser", *key);
            return -ENOTSUP;
        }
    }
    return 0;
}

static int take_socket(json_t *keys, struct chardev_spec *spec, struct error *err)
{
    const char *path = text_of(keys, "path"), *host = text_of(keys, "host"), *port = text_of(keys, "port");
    bool server = on(keys, "server", false);

    if (path && host) {
        error_set(err, "None or one of 'path', 'fd' or 'host' option required.");
        return -EINVAL;
    }
    if (!path && !host) {
        error_set(err, "chardev: socket: no path given");
        error_hint(err, "A socket has path=PATH, or host=ADDRESS,port=PORT.");
        return -EINVAL;
    }
    if (host && !port) {
        error_set(err, "chardev: socket: no port given");
        return -EINVAL;
    }
    if (!server && text_of(keys, "wait")) {
        error_set(err, "'wait' option is incompatible with socket in client connect mode");
        return -EINVAL;
    }
    spec->kind = server ? CHARDEV_SERVER : CHARDEV_CLIENT;
    spec->path = mem_strdup(path);
    spec->host = mem_strdup(host);
    spec->port = host ? mem_strdup(port) : NULL;
    spec->to = mem_strdup(text_of(keys, "to"));
    spec->ipv4 = on(keys, "ipv4", false);
    spec->ipv6 = on(keys, "ipv6", false);
    spec->nodelay = on(keys, "nodelay", false) || !on(keys, "delay", true);
    spec->telnet = on(keys, "telnet", false);
    spec->wait = on(keys, "wait", server);
    return check_missing(keys, err);
}

int place_from_keys(json_t *keys, struct chardev_spec *spec, struct error *err)
{
    const char *backend = text_of(keys, "backend"), *path = text_of(keys, "path");

    *spec = (struct chardev_spec){ .kind = CHARDEV_NONE };
    spec->id = mem_strdup(text_of(keys, "id"));
    if (check_keys(keys, err) < 0) {
        return -EINVAL;
    }
    if (!strcmp(backend, "socket")) {
        return take_socket(keys, spec, err);
    }
    if (!strcmp(backend, "stdio")) {
        spec->kind = CHARDEV_STDIO;
    } else if (!strcmp(backend, "file")) {
        if (!path) {
            error_set(err, "chardev: file: no filename given");
            return -EINVAL;
        }
        spec->kind = CHARDEV_FILE;
        spec->path = mem_strdup(path);
        spec->append = on(keys, "append", false);
    } else if (strcmp(backend, "null")) {
        error_set(err, "'%s' is not a valid char driver name", backend);
        return -EINVAL;
    }
    return 0;
}

/* --- The short forms ----------------------------------------------------------------------------- */

static json_t *keys_of(const char *backend, const char *key, const char *value)
{
    json_t *keys = json_pack("{s:s}", "backend", backend);

    if (key) {
        json_object_set_new(keys, key, json_stringn_nocheck(value, strlen(value)));
    }
    return keys;
}

/* unix:PATH,server,nowait */
static json_t *unix_keys(const char *text, struct error *err)
{
    json_t *keys = keyval_parse(text, "path", err);

    if (keys) {
        json_object_set_new(keys, "backend", json_string("socket"));
    }
    return keys;
}

/* HOST:PORT,server,nowait; the host in brackets when it has colons itself.  NULL without err: it is
 * none. */
static json_t *inet_keys(const char *text, bool telnet, struct error *err)
{
    const char *host = text, *host_end, *port, *rest;
    json_t *keys;

    if (*text == '[' && (host_end = strchr(text, ']'))) {
        host = text + 1;
        port = host_end + 1;
    } else {
        host_end = port = text + strcspn(text, ":,");
    }
    if (*port != ':' || !port[1] || port[1] == ',') {
        return NULL;
    }
    port++;
    rest = port + strcspn(port, ",");
    keys = keyval_parse(*rest ? rest + 1 : rest, NULL, err);
    if (!keys) {
        return NULL;
    }
    json_object_set_new(keys, "backend", json_string("socket"));
    json_object_set_new(keys, "host", json_stringn(host, host_end - host));
    json_object_set_new(keys, "port", json_stringn(port, rest - port));
    if (telnet && !json_object_get(keys, "telnet")) {
        json_object_set_new(keys, "telnet", json_string("on"));
    }
    return keys;
}

static json_t *word_keys(const char *word, struct error *err)
{
    if (!strcmp(word, "stdio") || !strcmp(word, "null")) {
        return keys_of(word, NULL, NULL);
    }
    if (!strcmp(word, "vc") || !strncmp(word, "vc:", 3)) {
        return keys_of("null", NULL, NULL);
    }
    if (!strncmp(word, "file:", 5)) {
        return keys_of("file", "path", word + 5);
    }
    if (!strncmp(word, "unix:", 5)) {
        return unix_keys(word + 5, err);
    }
    if (!strncmp(word, "tcp:", 4)) {
        return inet_keys(word + 4, false, err);
    }
    if (!strncmp(word, "telnet:", 7)) {
        return inet_keys(word + 7, true, err);
    }
    error_set(err, "'%s' is not a valid char driver", word);
    return NULL;
}

int place_from_word(const char *word, const char *shown, struct chardev_spec *spec, struct error *err)
{
    struct error why = ERROR_INIT;
    json_t *keys = word_keys(word, &why);
    int ret = -EINVAL;

    *spec = (struct chardev_spec){ .kind = CHARDEV_NONE };
    if (!keys && !error_is_set(&why)) {
        error_set(err, "parse error: %s", word);
        return ret;
    }
    if (!keys || (ret = check_keys(keys, &why)) < 0) {
        error_move(err, &why);
        error_hint(err, "merganser: %s: parse error: %s", shown, word);
        ret = -EINVAL;
    } else {
        ret = place_from_keys(keys, spec, err);
    }
    json_decref(keys);
    return ret;
}
