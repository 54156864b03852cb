import { library } from '../../tooling/tsup.js';
export default library(['src/main.ts'], { format: ['esm'], dts: false, shims: false, splitting: true });
