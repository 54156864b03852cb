// Writes native/q_ops.h from the command table.
import { writeFileSync } from 'node:fs';
import { nativeHeader } from '../src/driver/header.js';

writeFileSync(new URL('../native/q_ops.h', import.meta.url), nativeHeader());
