// The picture of a camera, in a video element.

const QUALITY = 0.95;

// Browsers offer cameras only to pages of this machine and to pages over HTTPS.
export function mayUseCamera() {
  return Boolean(navigator.mediaDevices?.getUserMedia);
}

// Show the camera's picture of about this size. Throws where there is no camera, or where it is not allowed.
export async function openCamera(video, [width, height]) {
  const size = { width: { ideal: width }, height: { ideal: height } };
  video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment', ...size } });
}

export function closeCamera(video) {
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
}

// Return what the camera shows now as a JPEG file, or null if no picture has come yet.
export async function takePicture(video) {
  const { videoWidth: width, videoHeight: height } = video;
  if (width === 0) return null;
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  canvas.getContext('2d').drawImage(video, 0, 0);
  const blob = await new Promise((resolve) => { canvas.toBlob(resolve, 'image/jpeg', QUALITY); });
  return new File([blob], `${timestamp()}.jpg`, { type: 'image/jpeg' });
}

function timestamp() {
  return new Date().toLocaleTimeString('sv').replaceAll(':', '-'); // 14-05-59
}
