/** Builds initial RAM file systems around Debian's busybox, for tests, benchmarks and users. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync } from 'node:fs'
import { basename, join } from 'node:path'
import { cpio, type Entry } from './cpio.ts'
import { cacheFolder, DebianError, packageFolder } from './packages.ts'

/** What /init does, and what markers it prints, when it is ours. */
export const benchInit = `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
echo "@@USERSPACE uptime=$(cat /proc/uptime)"
run=; kex=100000; port=
for word in $(cat /proc/cmdline); do
  case $word in run=*) run=\${word#run=};; kex=*) kex=\${word#kex=};; port=*) port=\${word#port=};; esac
done
load_modules() { for module in $(cat /mod/order); do insmod /mod/$module; done; } 2>/dev/null
for item in $(echo "$run" | tr , ' '); do
  case $item in
    bench) bench all;;
    shell) setsid cttyhack sh 2>/dev/null || sh;;
    info) head -8 /proc/cpuinfo; dmesg | tail -40; cat /proc/interrupts;;
    sh) echo "@@START shloop"; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo "@@END shloop check=$i"
        echo "@@START gzip"
        dd if=/dev/zero bs=64k count=256 2>/dev/null | cat - /bin/busybox /bin/busybox | gzip -6 | md5sum
        echo "@@END gzip";;
    kvm) load_modules; dmesg | grep -iE 'kvm|svm|vmx' | tail -8; knest "$kex"; echo "knest rc=$?";;
    nested) load_modules; beside;;
    disk) load_modules; for work in diskrandom diskread diskwrite; do disk $work; done;;
    nvme) load_modules; for work in nvmerandom nvmeread nvmewrite; do disk $work; done;;
    net) load_modules; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
        while [ "$(cat /sys/class/net/eth0/carrier)" != 1 ]; do sleep 0.1; done
        nc 10.0.2.2 $port </dev/null >/dev/null
        echo "@@START netdown"; echo "@@END netdown check=$(echo down | nc 10.0.2.2 $port | wc -c)"
        echo "@@START netup"; n=$({ echo up; dd if=/dev/zero bs=64k count=512 2>/dev/null; } | nc 10.0.2.2 $port)
        echo "@@END netup check=$n";;
    *) bench "$item";;
  esac
done
echo "@@DONE"; sleep 1; poweroff -f
`

/** Mounts what programs expect and gives a shell on the console. */
export const shellInit = `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in $(cat /mod/order); do insmod /mod/$module; done
exec setsid cttyhack sh
`

/** Starts the system that lies on the first virtio disk. */
export const rootInit = `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in $(cat /mod/order); do insmod /mod/$module; done
mkdir -p /disk; mount -t ext4 /dev/vda /disk || exec setsid cttyhack sh
for each in proc sys dev; do mount --move /$each /disk/$each; done
exec switch_root /disk /sbin/init
`

export interface InitramfsOptions {
  /** The script that the kernel starts. */
  init: string
  /** Statically linked programs, put into /bin. */
  programs?: readonly string[]
  /** Kernel modules, put into /mod, in the order in which they are to be loaded. */
  modules?: readonly string[]
  /** More files by their path, as text. */
  files?: Readonly<Record<string, string>>
  /** Anything else. */
  entries?: readonly Entry[]
}

export function initramfs({ init, programs = [], modules = [], files = {}, entries: more = [] }: InitramfsOptions): Uint8Array {
  const busybox = join(packageFolder('busybox-static'), 'bin/busybox')
  const entries: Entry[] = ['bin', 'proc', 'sys', 'dev', 'tmp', 'mod', 'etc'].map(path => ({ path, kind: 'folder' }))
  entries.push(
    { path: 'dev/console', kind: 'device', mode: 0o600, major: 5, minor: 1 },
    { path: 'bin/busybox', kind: 'file', data: readFileSync(busybox), mode: 0o755 },
    ...applets(busybox).map((name): Entry => ({ path: `bin/${name}`, kind: 'link', target: 'busybox' })),
    ...programs.map((file): Entry => ({ path: `bin/${basename(file)}`, kind: 'file', data: readFileSync(file), mode: 0o755 })),
    ...modules.map((file): Entry => ({ path: `mod/${basename(file)}`, kind: 'file', data: readFileSync(file) })),
    { path: 'mod/order', kind: 'file', data: Buffer.from(modules.map(file => `${basename(file)}\n`).join('')) },
    ...Object.entries(files).map(([path, text]): Entry => ({ path, kind: 'file', data: Buffer.from(text), mode: 0o755 })),
    ...more,
    { path: 'init', kind: 'file', data: Buffer.from(init), mode: 0o755 },
  )
  return cpio(entries)
}

/** Asked of the program itself where it runs; elsewhere (an ARM machine) the ones that scripts of ours use. */
function applets(busybox: string): string[] {
  try {
    return execFileSync(busybox, ['--list'], { encoding: 'utf8' }).split('\n').filter(name => name !== '' && name !== 'busybox')
  } catch {
    return ('sh mount umount insmod dmesg poweroff reboot cat echo sleep uname grep dd gzip gunzip md5sum sha256sum ls seq head tail ' +
      'true false sort awk ps vi tr setsid cttyhack test mkdir rm cp mv ln chmod printf wc cut sed env hostname ip ping stty').split(' ')
  }
}

/** Compiles a C program, statically, with the machine's gcc. Compiled once for each version of its source. */
export const compile = (source: string): string => compileOnce(source, '.c', ['-O2', '-static'], ['-lm'])

/** Assembles a kernel for multiboot: 32-bit code at 1 MiB to begin with, and nothing of the machine's libraries. */
export const compileKernel = (source: string): string => compileOnce(source, '.S', ['-m32', '-nostdlib', '-static', '-no-pie',
  '-Wl,-Ttext-segment=0x100000', '-Wl,-z,noexecstack', '-Wl,--build-id=none'])

function compileOnce(source: string, suffix: string, options: readonly string[], libraries: readonly string[] = []): string {
  const hash = createHash('sha256').update(readFileSync(source)).digest('hex').slice(0, 16)
  const folder = join(cacheFolder(), `compiled_${hash}`)
  const program = join(folder, basename(source, suffix))
  if (existsSync(program)) return program
  mkdirSync(folder, { recursive: true })
  const temporary = `${program}.${process.pid}`
  try {
    execFileSync('gcc', [...options, '-o', temporary, source, ...libraries], { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' })
  } catch (error) {
    const { code, stderr } = error as { code?: string; stderr?: string }
    if (code === 'ENOENT') throw new DebianError(`gcc is missing, to compile ${source} (apt-get install gcc libc6-dev)`)
    throw new DebianError(`gcc failed on ${source}:\n${stderr}`)
  }
  renameSync(temporary, program)
  return program
}
