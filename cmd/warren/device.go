package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/warren-vpn/warren/internal/api"
)

func newDevice(c *cli) *cobra.Command {
	return group(&cobra.Command{
		Use:   "device",
		Short: "Let a phone in with the stock WireGuard app",
		Long: `A device runs stock WireGuard, such as the app on a phone, and is served by this
machine. It is a member with an address of its own: "warren members" lists it, and
"warren revoke" puts it out.`,
		Example: `  sudo warren device add phone --qr`,
	}, newDeviceAdd(c))
}

func newDeviceAdd(c *cli) *cobra.Command {
	var output string
	var drawQR bool
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Make a configuration for a device",
		Long: `Make a WireGuard configuration for a device that this machine serves, and print it
for wg-quick, as a QR code for the app, or into a file that only you can read. It
holds the device's private key, is not kept, and cannot be shown again.

This machine must be an admin with the right to issue, and must be reachable for the
device.`,
		Example: `  sudo warren device add phone --qr
  sudo warren device add printer --output printer.conf`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := api.CheckName("device", args[0]); err != nil {
				return err
			}
			var file *os.File
			if output != "" { // before the device exists: its configuration cannot be had twice
				var err error
				if file, err = newPrivateFile(output); err != nil {
					return err
				}
			}
			r, err := c.client().DeviceAdd(cmd.Context(), api.DeviceRequest{Network: c.network, Name: args[0]})
			if file != nil {
				if err = writeConfig(file, r.Config, err); err != nil {
					return err
				}
			}
			if err != nil {
				return err
			}
			return c.show(r, func() { c.printDevice(r, output, drawQR) })
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write the configuration into a new `FILE`")
	qrFlag(cmd, &drawQR)
	return cmd
}

func (c *cli) printDevice(r api.DeviceReply, output string, drawQR bool) {
	c.note("The device %s has the address %s and is served by %s.", clean(r.Name), join(r.Addresses), clean(r.Gateway))
	switch {
	case output != "":
		c.note("Its configuration is in %s.", output)
	case !drawQR:
		c.printf("%s", r.Config)
	}
	if drawQR {
		c.note("Scan this with the WireGuard app:\n")
		qr(c.out, r.Config)
	}
	c.note("The configuration holds the device's private key and is not shown again.")
}

// newPrivateFile makes a file that only its owner reads, and overwrites none.
func newPrivateFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, &usageError{path + " is there already", "choose another --output FILE, or remove it"}
	}
	if err != nil {
		return nil, fmt.Errorf("make the configuration file: %w", err)
	}
	return f, nil
}

// writeConfig fills the file, or removes it when there is nothing to put in.
func writeConfig(f *os.File, config string, failed error) error {
	if failed != nil {
		return errors.Join(failed, f.Close(), os.Remove(f.Name()))
	}
	_, err := f.WriteString(config)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return nil
}
