import { library } from '../../tooling/tsup.js';
// Runs in a browser too: no Node shims.
export default library(['src/index.ts'], { platform: 'neutral', shims: false });
