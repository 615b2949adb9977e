/** The emulators that are measured, each as a command that boots the same kernel and prints the guest's serial port. */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export interface Work {
  kernel: string
  /** None for a kernel that is a workload by itself. */
  initrd?: string
  /** Raw images, where the work needs disks, and how they are attached. */
  disks?: { file: string; bus: 'virtio' | 'nvme' }[]
  /** The card on a user network, where the work needs one. */
  network?: 'e1000'
  append: string
  megabytes: number
  vendor: 'intel' | 'amd'
  /** A folder for what a peer needs to be written. */
  scratch: string
}

/** With Linux, which needs its RAM disk. */
export type LinuxWork = Work & { readonly initrd: string }

export interface Peer {
  name: string
  /** How many times longer than others it may take. */
  patience?: number
  /** One run that does not count comes before the others: it leaves something that they find. */
  warmsUp?: boolean
  /** What is missing to run it; undefined when nothing is. */
  missing(): string | undefined
  command(work: Work): [string, ...string[]]
}

const root = fileURLToPath(new URL('../../../../', import.meta.url))

/** Ourselves, on the Node that runs us. */
export const vitrineCommand: [string, string] = [process.execPath, join(root, 'bin/vitrine.js')]

/** `keeps`: compiled code is kept from one run to the next. */
const vitrine = (name: string, engine: 'jit' | 'interpreter', keeps = false): Peer => ({
  name,
  patience: engine === 'jit' ? 1 : 4,
  warmsUp: keeps,
  missing: () => undefined,
  command: ({ kernel, initrd, disks = [], network, append, megabytes, vendor, scratch }) => [
    ...vitrineCommand, 'run', '--quiet', '--cpu', vendor, '--engine', engine, '--memory', `${megabytes}M`,
    '--code-cache', keeps ? join(scratch, 'code') : 'off',
    '--kernel', kernel, ...(initrd === undefined ? [] : ['--initrd', initrd, '--append', append]),
    ...disks.flatMap(({ file, bus }) => ['--drive', `${file},format=raw,if=${bus}`]),
    ...(network === undefined ? [] : ['--net', `user,model=${network}`]),
  ],
})

const qemu: Peer = {
  name: 'qemu',
  missing: () => lacking('qemu-system-x86_64'),
  command: ({ kernel, initrd, disks = [], network, append, megabytes }) => [
    'qemu-system-x86_64', '-machine', 'q35,accel=tcg', '-cpu', 'max,+svm', '-m', String(megabytes), '-display', 'none', '-nodefaults',
    '-serial', 'stdio', '-no-reboot', '-kernel', kernel, ...(initrd === undefined ? [] : ['-initrd', initrd, '-append', append]),
    ...disks.flatMap(qemuDisk),
    ...(network === undefined ? [] : ['-netdev', 'user,id=net', '-device', `${network},netdev=net`]),
  ],
}

function qemuDisk({ file, bus }: NonNullable<Work['disks']>[number]): string[] {
  if (bus === 'virtio') return ['-drive', `file=${file},format=raw,if=virtio`]
  return ['-drive', `file=${file},format=raw,if=none,id=disk`, '-device', 'nvme,drive=disk,serial=bench']
}

/** Bochs has no loader: it boots an ISO image with GRUB. Its serial port is a file, which here is a pipe. */
const bochs: Peer = {
  name: 'bochs',
  patience: 10,
  missing: () => lacking('bochs', 'grub-mkrescue', 'xorriso', 'mkfifo') ?? (existsSync(bochsBios) ? undefined : `${bochsBios} (bochsbios)`),
  command(work) {
    const folder = join(work.scratch, 'bochs')
    const [iso, rc, pipe] = [join(folder, 'boot.iso'), join(folder, 'bochsrc'), join(folder, 'serial')]
    const tree = join(folder, 'iso')
    mkdirSync(join(tree, 'boot/grub'), { recursive: true })
    execFileSync('cp', [work.kernel, join(tree, 'boot/vmlinuz')])
    if (work.initrd !== undefined) execFileSync('cp', [work.initrd, join(tree, 'boot/initramfs.cpio')])
    writeFileSync(join(tree, 'boot/grub/grub.cfg'), grubConfiguration(work))
    execFileSync('grub-mkrescue', ['-o', iso, tree], { stdio: 'pipe' })
    if (!existsSync(pipe)) execFileSync('mkfifo', [pipe])
    writeFileSync(rc, bochsConfiguration(work, iso, pipe, join(folder, 'log')))
    // Debian's Bochs starts in its debugger: "c" lets it go.
    const shell = 'cat "$1" & reader=$!; trap "kill $reader" EXIT; echo c | bochs -q -f "$2" >"$3" 2>&1'
    return ['sh', '-c', shell, 'sh', pipe, rc, join(folder, 'console')]
  },
}

const bochsBios = '/usr/share/bochs/BIOS-bochs-latest'

function grubConfiguration({ initrd, append }: Work): string {
  const lines = initrd === undefined ? 'multiboot /boot/vmlinuz' : `linux /boot/vmlinuz ${append}\n  initrd /boot/initramfs.cpio`
  return `set timeout=0\nset default=0\nmenuentry work {\n  ${lines}\n}\n`
}

/** Bochs user manual, "The configuration file bochsrc". */
function bochsConfiguration({ megabytes, vendor }: Work, iso: string, serial: string, log: string): string {
  return [
    `megs: ${megabytes}`,
    `cpu: model=${vendor === 'amd' ? 'ryzen' : 'corei7_haswell_4770'}, ips=200000000, reset_on_triple_fault=0`,
    'clock: sync=none',
    `romimage: file=${bochsBios}`,
    'vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest',
    'display_library: rfb, options="timeout=0"',
    'plugin_ctrl: speaker=0',
    'sound: waveoutdrv=dummy',
    'ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14',
    `ata0-master: type=cdrom, path=${iso}, status=inserted`,
    'boot: cdrom',
    `com1: enabled=1, mode=file, dev=${serial}`,
    'panic: action=fatal',
    'error: action=ignore',
    `log: ${log}`,
  ].join('\n')
}

function lacking(...programs: string[]): string | undefined {
  return programs.find(program => {
    try {
      execFileSync('sh', ['-c', `command -v ${program}`], { stdio: 'pipe' })
      return false
    } catch {
      return true
    }
  })
}

export const peers: readonly Peer[] = [
  vitrine('vitrine', 'jit', true), vitrine('first', 'jit'), vitrine('interpreter', 'interpreter'), qemu, bochs,
]
