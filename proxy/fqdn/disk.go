package fqdn

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// fileName is what the file is called in the directory that the process was given.
const fileName = "learnt"

// Dir is a Disk in a directory that another process has opened: ours may see no path to
// it.
type Dir struct{ fd int }

// OpenDir takes a directory by its descriptor.
func OpenDir(fd int) (*Dir, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, fmt.Errorf("keep names: descriptor %d is no directory", fd)
	}
	unix.CloseOnExec(fd)
	return &Dir{fd}, nil
}

// Load implements Disk.
func (d *Dir) Load() ([]byte, error) {
	fd, err := unix.Openat(d.fd, fileName, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the file of names: %w", err)
	}
	f := os.NewFile(uintptr(fd), fileName)
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read the file of names: %w", err)
	}
	return data, nil
}

// Save implements Disk: the file is the old or the new, and never half of one.
func (d *Dir) Save(data []byte) error {
	// Two processes may do so for a moment, while one takes over from the other.
	temporary := fmt.Sprintf("%s.%d", fileName, os.Getpid())
	fd, err := unix.Openat(d.fd, temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("write the file of names: %w", err)
	}
	f := os.NewFile(uintptr(fd), temporary)
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = unix.Renameat(d.fd, temporary, d.fd, fileName)
	}
	if err != nil {
		_ = unix.Unlinkat(d.fd, temporary, 0)
		return fmt.Errorf("write the file of names: %w", err)
	}
	return nil
}
