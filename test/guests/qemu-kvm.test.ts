/** Debian's QEMU with KVM, unmodified, inside Debian inside us: it boots a kernel with two CPUs to its shell, and that powers off. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { initramfs } from '../../tools/debian/initramfs.ts'
import { debianKernel, moduleFiles } from '../../tools/debian/packages.ts'
import { installedQemu } from '../../tools/debian/qemu.ts'
import { kernelFile, runCommand } from './linux.ts'

const inner = `#!/bin/sh
mount -t proc proc /proc
echo "@@ inside $(uname -m), $(grep -c hypervisor /proc/cpuinfo) CPUs with a hypervisor"
i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; echo "@@ counted $i"
echo "@@ sum $(seq 1 3000 | sha256sum)"
poweroff -f
`
const outer = `#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
for module in $(cat /mod/order); do insmod /mod/$module; done
qemu-system-x86_64 -L /usr/share/qemu -accel kvm -cpu host -m 256 -smp 2 -nodefaults -display none -serial stdio -no-reboot \\
  -kernel /vmlinuz -initrd /inner -append 'console=ttyS0 quiet mitigations=off' </dev/null
echo "@@ QEMU ended $?"
poweroff -f
`
/** `seq 1 3000 | sha256sum` of coreutils. */
const sum = '2e57c67a8bbe706a08d6638ec67da02b67b3743ae7d35948cbcf8d1f45cae0a5'

for (const [cpu, module] of [['intel', 'kvm-intel'], ['amd', 'kvm-amd']])
  test(`${cpu}: QEMU -accel kvm runs a Debian kernel on two CPUs`, () => {
    const kernel = readFileSync(kernelFile('cloud'))
    const disk = initramfs({
      init: outer, modules: moduleFiles(debianKernel('cloud'), ['irqbypass', 'kvm', module]),
      entries: [...installedQemu(), { path: 'vmlinuz', kind: 'file', data: kernel },
        { path: 'inner', kind: 'file', data: gzipSync(initramfs({ init: inner }), { level: 1 }) }],
    })
    const args = ['--cpu', cpu, '--memory', '1G', '--kernel', kernelFile('cloud'), '--append', 'console=ttyS0 quiet mitigations=off']
    const { status, ending, console, errors } = runCommand(args, '', disk)
    assert.deepEqual([status, ending], [0, 'power-off'], errors + console.slice(-3000))
    assert.match(console, /@@ inside x86_64, 2 CPUs with a hypervisor[^]*@@ counted 1000/)
    assert.ok(console.includes(`@@ sum ${sum}`))
    assert.match(console, /@@ QEMU ended 0/)
  })
