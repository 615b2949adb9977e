/** Debian's Xen on VT-x and on AMD-V: Debian's kernel as its first domain, by nested paging (PVH), up to its power-off. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { createMachine } from '../../src/machine.ts'
import { initramfs } from '../../tools/debian/initramfs.ts'
import { packageFolder } from '../../tools/debian/packages.ts'
import { kernelFile } from './linux.ts'

const init = `#!/bin/busybox sh
/bin/busybox mount -t sysfs sysfs /sys; /bin/busybox mount -t proc proc /proc
echo "@@ hypervisor $(/bin/busybox cat /sys/hypervisor/type) mode $(/bin/busybox cat /sys/hypervisor/guest_type)"
echo "@@ sum $(/bin/busybox seq 1 3000 | /bin/busybox sha256sum)"
/bin/busybox poweroff -f
`
/** `seq 1 3000 | sha256sum` of coreutils. */
const sum = '2e57c67a8bbe706a08d6638ec67da02b67b3743ae7d35948cbcf8d1f45cae0a5'

function xen(): Uint8Array {
  const folder = join(packageFolder('xen-hypervisor-4.17-amd64'), 'boot')
  return gunzipSync(readFileSync(join(folder, readdirSync(folder).find(file => file.endsWith('.gz'))!)))
}

for (const model of ['intel', 'amd'])
  test(`${model}: a PVH dom0 reaches userspace and powers off`, () => {
    const machine = createMachine({
      kernel: xen(), kernelName: 'xen', protocol: 'multiboot', memory: 1 << 30, chipset: 'q35', engine: 'jit', noReboot: true,
      cpu: { model }, commandLine: 'console=com1 com1=115200 dom0=pvh dom0-iommu=none dom0_mem=512M',
      modules: [{ name: 'vmlinuz', bytes: readFileSync(kernelFile('generic')), arguments: 'console=hvc0 quiet' },
        { name: 'initrd', bytes: initramfs({ init }), arguments: '' }],
    })
    let text = ''
    machine.onSerialOutput = bytes => { text += String.fromCharCode(...bytes) }
    let stop = machine.run({ maxInstructions: 50_000_000 })
    for (let i = 0; i < 400 && stop.kind === 'budget'; i++) stop = machine.run({ maxInstructions: 50_000_000 })
    assert.equal(stop.kind, 'power-off', text.slice(-3000))
    assert.match(text, /@@ hypervisor xen mode PVH/)
    assert.ok(text.includes(`@@ sum ${sum}`))
  })
