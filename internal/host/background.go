//go:build unix

package host

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	maxLog   = 8 << 20         // a larger log is set aside as LOG.1 before a start
	maxWords = 4 << 10         // of what a daemon says about its start
	grace    = 5 * time.Second // to end after it has said that it failed, or was asked to
)

// StartBackground starts binary with args as a daemon of its own: a new session, nothing on its standard input, and
// its output appended to the log at logPath (made with mode 0600; its directory must be there). It waits at most ready
// for the daemon to call [NotifyReady], and returns its pid. When the daemon calls [NotifyFailed], ends, or does neither
// in time, the error has its own words; it does not run then.
func StartBackground(binary string, args []string, logPath string, ready time.Duration) (pid int, err error) {
	b, err := launch(binary, args, logPath)
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", binary, err)
	}
	defer b.pipe.Close()
	defer b.log.Close()
	words, err := b.listen(ready)
	if err == nil && string(words) == "ok\n" {
		pid := b.cmd.Process.Pid
		return pid, b.cmd.Process.Release()
	}
	late := errors.Is(err, os.ErrDeadlineExceeded)
	end := b.end(late)
	text := strings.TrimSpace(string(words))
	switch {
	case late:
		err = fmt.Errorf("it was not ready after %v and was ended%s", ready, b.lastWords())
	case text != "":
		err = errors.New(text)
	case end == nil:
		err = fmt.Errorf("it ended without a word of failure%s", b.lastWords())
	default:
		err = fmt.Errorf("it ended: %w%s", end, b.lastWords())
	}
	return 0, err
}

// background is a daemon that is being started.
type background struct {
	cmd  *exec.Cmd
	pipe *os.File // where it says how the start went
	log  *os.File
	from int64 // length of the log before
}

func launch(binary string, args []string, logPath string) (*background, error) {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(logPath); err == nil && info.Size() > maxLog {
		if err := os.Rename(logPath, logPath+".1"); err != nil {
			return nil, err
		}
	}
	log, err := os.OpenFile(logPath, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	defer write.Close() // the daemon has its own
	cmd := exec.Command(binary, args...)
	cmd.Dir = "/" // so that no file system is kept from being unmounted
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{write} // file descriptor 3
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "NOTIFY_SOCKET=") }), readyEnv+"=3")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, read.Close(), log.Close())
	}
	return &background{cmd: cmd, pipe: read, log: log, from: from}, nil
}

// listen reads what the daemon says until it says "ok", closes its end (by its death, if not before), or time is up.
func (b *background) listen(ready time.Duration) ([]byte, error) {
	if err := b.pipe.SetReadDeadline(time.Now().Add(ready)); err != nil {
		return nil, err
	}
	var words []byte
	for buf := make([]byte, 512); len(words) < maxWords; {
		n, err := b.pipe.Read(buf)
		words = append(words, buf[:n]...)
		if string(words) == "ok\n" || errors.Is(err, io.EOF) {
			return words, nil
		}
		if err != nil {
			return words, err
		}
	}
	return words, nil
}

// end waits for the daemon's end and sees to it: a daemon that failed has a while to end by itself, one that is late is
// asked to first.
func (b *background) end(ask bool) error {
	if ask {
		_ = b.cmd.Process.Signal(syscall.SIGTERM)
	}
	kill := time.AfterFunc(grace, func() { _ = b.cmd.Process.Kill() })
	defer kill.Stop()
	return b.cmd.Wait()
}

// lastWords returns what the daemon has logged, a few lines of it at most, to be put behind a sentence.
func (b *background) lastWords() string {
	size, err := b.log.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	from := max(b.from, size-maxWords)
	text, err := io.ReadAll(io.NewSectionReader(b.log, from, size-from))
	if text = bytes.TrimSpace(text); err != nil || len(text) == 0 {
		return "; nothing is in its log"
	}
	lines := bytes.Split(text, []byte("\n"))
	lines = lines[max(0, len(lines)-8):]
	return "; its last words:\n" + string(bytes.Join(lines, []byte("\n")))
}
