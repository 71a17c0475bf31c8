// Package lab runs real Flink for tests: it fetches a release of Flink, compiles a job against it, and starts
// clusters of one JobManager and one TaskManager on loopback, without containers and without Flink's shell
// scripts.
//
//	l, err := lab.Find()
//	flink, err := l.Distribution(ctx, "2.3.0")
//	jar, err := l.Compile(ctx, flink, "PinnedState", source)
//	cluster, err := l.Start(lab.Options{Distribution: flink, Job: lab.Job{Jar: jar, Class: "PinnedState"}, …})
//	defer cluster.Stop()
//	err = cluster.WaitRunning(ctx)
//
// A session cluster is one without a Job; see [Cluster.WaitReady], [Cluster.Submit] and [Cluster.Flink].
//
// What takes long is kept in a cache that processes share: a distribution (about 300 MB) and a filesystem plugin
// are downloaded once, a job is compiled once per release. A cluster takes 5 to 15 seconds to come up and about 600 MiB of memory.
//
// Every wait ends with its context. The lab leaves nothing running: clusters are stopped by process id, and on
// Linux they also die with the process that started them.
package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// A Lab names the programs and the cache folder that clusters are made with. [Find] fills it.
type Lab struct {
	// Cache is the folder of downloads and compiled jobs. Processes may share it.
	Cache string

	// Java, Javac and Python are the paths of the programs. Java 17 is right for every release from 1.13.6 to
	// 2.3.0: those before 1.18 do not support it, but run on it as the lab starts them.
	Java, Javac, Python string

	// Maven is the path of mvn, empty where it is not installed: only [Lab.Plugin] and [Lab.SQLClient] need it.
	Maven string
}

// MissingProgramError says that the lab cannot work on this machine, and what would help.
type MissingProgramError struct {
	Program string // as it is called, such as "javac"
	Install string // how to get it
}

func (e *MissingProgramError) Error() string {
	return fmt.Sprintf("lab: no %s found: %s", e.Program, e.Install)
}

const (
	installJava = "install a JDK, version 17 (Debian, Ubuntu: apt-get install openjdk-17-jdk-headless), " +
		"and put it on PATH or name it in JAVA_HOME"
	installPython = "install Python 3 with its venv module (Debian, Ubuntu: apt-get install python3 python3-venv): " +
		"pip downloads Flink"
	installMaven = "install Maven (Debian, Ubuntu: apt-get install maven): it downloads Flink's plugins"
)

// Find returns the lab of this machine. The cache is $CHKPIN_LAB_CACHE, else chkpin-lab in the user's cache
// folder; Java is that of $JAVA_HOME, else of $PATH. The error joins one *MissingProgramError for each program
// that is not there. A machine without Maven has a lab without plugins.
func Find() (Lab, error) {
	cache := os.Getenv("CHKPIN_LAB_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return Lab{}, fmt.Errorf("lab: finding a cache folder (CHKPIN_LAB_CACHE would name one): %w", err)
		}
		cache = filepath.Join(user, "chkpin-lab")
	}
	cache, err := filepath.Abs(cache)
	if err != nil {
		return Lab{}, fmt.Errorf("lab: finding the cache folder: %w", err)
	}

	java, errJava := findProgram("java", installJava)
	javac, errJavac := findProgram("javac", installJava)
	python, errPython := findProgram("python3", installPython)
	if err := errors.Join(errJava, errJavac, errPython); err != nil {
		return Lab{}, err
	}
	maven, err := findProgram("mvn", installMaven)
	if err != nil {
		maven = ""
	}
	return Lab{Cache: cache, Java: java, Javac: javac, Python: python, Maven: maven}, nil
}

func findProgram(name, install string) (string, error) {
	if home := os.Getenv("JAVA_HOME"); home != "" && install == installJava {
		if path, err := exec.LookPath(filepath.Join(home, "bin", name)); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", &MissingProgramError{Program: name, Install: install}
	}
	return path, nil
}
