package main

import (
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// version is set by the linker for releases: -ldflags "-X main.version=1.2.3".
var version string

// versionReply is what `version --json` prints (spec/60-api.md#version).
type versionReply struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func newVersion(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program",
		Long:    `Print the version of this program. The daemon that runs has its own: "warren status".`,
		Example: `  warren version --json`,
		Args:    args(),
		RunE: func(*cobra.Command, []string) error {
			v := versionReply{buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
			return c.show(v, func() { c.printf("warren %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch) })
		},
	}
}

// buildVersion is the linker's version, or what the toolchain knows of the build.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return strings.TrimPrefix(info.Main.Version, "v")
}
