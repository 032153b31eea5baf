package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"herald/pkg/message"
)

// refusing starts a server that rejects every connection with an SQLSTATE.
func refusing(t *testing.T, code string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b := pgproto3.NewBackend(conn, conn)
			if _, err := b.ReceiveStartupMessage(); err == nil {
				b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: "refused"})
				_ = b.Flush()
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}

// A rejected connection is an unavailable database, for every SQLSTATE.
func TestFaultRefusedConnections(t *testing.T) {
	for _, code := range []string{"XX000", "53300", "57P03", "28P01", "3D000", "58030", "0A000"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := pgconn.Connect(ctx, "postgres://x@"+refusing(t, code)+"/x?sslmode=disable")
		cancel()
		var e *message.Error
		if err == nil || !errors.As(WrapError("insert the message", err), &e) || e.Code != message.CodeUnavailable || e.RetryAfter <= 0 {
			t.Errorf("%s: %v", code, err)
		}
	}
}

// Only data and defects of a statement are permanent.
func TestFaultClosedListOfPermanentErrors(t *testing.T) {
	for code, want := range map[string]message.Code{
		"22003": message.CodeInvalid, "23505": message.CodeInvalid, "54000": message.CodeInvalid,
		"42P01": "", "42601": "", "0A000": "",
		"25006": message.CodeUnavailable, "53100": message.CodeUnavailable, "53200": message.CodeUnavailable, "57014": message.CodeUnavailable,
		"40P01": message.CodeUnavailable, "40001": message.CodeUnavailable, "55P03": message.CodeUnavailable, "XX000": message.CodeUnavailable,
		"58030": message.CodeUnavailable, "26000": message.CodeUnavailable, "08006": message.CodeUnavailable, "P0001": message.CodeUnavailable,
	} {
		err := WrapError("settle the message", fmt.Errorf("batch: %w", &pgconn.PgError{Code: code}))
		var e *message.Error
		if got := errors.As(err, &e); got != (want != "") || got && e.Code != want {
			t.Errorf("%s: %v, want the code %q", code, err, want)
		}
	}
	for name, err := range map[string]error{
		"the connection broke": io.ErrUnexpectedEOF, "closed": net.ErrClosed, "a timeout": context.DeadlineExceeded,
		"a network error": &net.OpError{Op: "read", Err: errors.New("reset")},
	} {
		if !message.IsCode(WrapError("load the message", err), message.CodeUnavailable) {
			t.Errorf("%s is permanent", name)
		}
	}
}

// A connection to a server that became read-only is not used again; others are.
func TestFaultReadOnlyConnectionsAreClosed(t *testing.T) {
	for err, want := range map[*pgconn.PgError]bool{
		{Severity: "ERROR", Code: "25006"}: false, {Severity: "FATAL", Code: "57P01"}: false, {Severity: "ERROR", Code: "23505"}: true,
		{Severity: "ERROR", Code: "53100"}: true,
	} {
		if keepConnection(err) != want {
			t.Errorf("%s %s: kept: %t", err.Severity, err.Code, !want)
		}
	}
}
