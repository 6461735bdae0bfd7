// JSON lines on standard error, in the shape of the rest of the product. The runtime passes them to its own log.
package main

import (
	"encoding/json"
	"io"
	"time"
)

var logLevels = map[string]int{"error": 0, "warn": 1, "info": 2, "debug": 3}

type logger struct {
	out    io.Writer
	level  int
	fields []any
}

func newLogger(out io.Writer) *logger {
	return &logger{out: out, level: logLevels["info"]}
}

func (l *logger) error(message string, pairs ...any) { l.write("error", message, pairs) }
func (l *logger) warn(message string, pairs ...any)  { l.write("warn", message, pairs) }
func (l *logger) info(message string, pairs ...any)  { l.write("info", message, pairs) }
func (l *logger) debug(message string, pairs ...any) { l.write("debug", message, pairs) }

// write prints one line; pairs are names and values in turn.
func (l *logger) write(level, message string, pairs []any) {
	if logLevels[level] > l.level {
		return
	}
	line := map[string]any{
		"time": time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), "level": level, "component": "heddle-cni",
		"message": message,
	}
	all := append(append([]any{}, l.fields...), pairs...)
	for i := 0; i+1 < len(all); i += 2 {
		if name, ok := all[i].(string); ok {
			line[name] = all[i+1]
		}
	}
	encoded, err := json.Marshal(line)
	if err != nil {
		return // only reachable with a value that JSON cannot hold, which no caller passes
	}
	// A log line that cannot be written has nowhere else to go.
	_, _ = l.out.Write(append(encoded, '\n'))
}
